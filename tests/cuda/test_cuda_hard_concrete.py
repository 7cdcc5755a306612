"""hard_concrete on the device: mirrors tests/test_hard_concrete.py."""

import pytest
import torch
from compare import away_from_kinks
from cuda_cases import check, large, misaligned
from test_hard_concrete import OPTIONS, SEED, unclamped

from l0fast import ops, reference

SIZES = [0, 1, 2, 3, 4, 5, 255, 1021, 4099, "large"]
SEEDS = [SEED, torch.tensor([-7]), None]


@pytest.mark.parametrize("seed", SEEDS, ids=["sampled", "negative seed", "deterministic"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_forward_and_backward(device, size, options, seed):
    size = large(device) if size == "large" else size
    x, grad = torch.randn(size) * 3, torch.randn(size)

    def call(functions, dtype, where):
        a = x.to(where, dtype).requires_grad_()
        z = functions.hard_concrete(a, None if seed is None else seed.to(where), **options)
        return z, *torch.autograd.grad(z, a, grad.to(where, dtype))

    mask = away_from_kinks(unclamped(x.double(), seed, **options))
    check(call, device, ("z", "gradient"), {"gradient": mask})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1, 7, 4099])
def test_half_precision_is_float_arithmetic_rounded_once(device, dtype, size):
    a, grad = ((torch.randn(size) * 2).to(device, dtype) for _ in range(2))
    seed, results = SEED.to(device), []
    for x, g in ((a, grad), (a.float(), grad.float())):
        x.requires_grad_()
        z = ops.hard_concrete(x, seed)
        results.append((z.detach().to(dtype), *(t.to(dtype) for t in torch.autograd.grad(z, x, g))))
    assert results[0][0].dtype == dtype
    assert all(torch.equal(p, q) for p, q in zip(*results, strict=True))


@pytest.mark.parametrize("seed", [SEED, None])
def test_float64_equals_reference(device, seed):
    a = torch.randn(1021, dtype=torch.float64) * 3
    got = ops.hard_concrete(a.to(device), None if seed is None else seed.to(device))
    torch.testing.assert_close(got.cpu(), reference.hard_concrete(a, seed), rtol=0, atol=1e-13)


@pytest.mark.parametrize("begin", [1, 2, 3, 4, 5, 1023, 1026])
def test_a_shard_draws_by_its_global_index(device, begin):
    """Also where it starts in the middle of one of Philox's blocks of four, and in memory at any address."""
    a, seed = torch.randn(5000, device=device), SEED.to(device)
    whole = ops.hard_concrete(a, seed, stream=9)
    view, copy = a[begin:], a[begin:].clone()
    for shard in (view, copy):
        assert torch.equal(ops.hard_concrete(shard, seed, stream=9, first_index=begin), whole[begin:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("size", [1, 2, 5, 4099])
def test_misaligned_pointers_give_the_same_bits(device, dtype, size):
    a, grad, seed = torch.randn(size).to(device, dtype), torch.randn(size).to(device, dtype), SEED.to(device)
    expected = None
    for x in (a, misaligned(a, device)):
        for g in (grad, misaligned(grad, device)):
            x = x.detach().requires_grad_()
            z = ops.hard_concrete(x, seed)
            got = (z.detach(), *torch.autograd.grad(z, x, g))
            expected = expected or got
            assert all(torch.equal(p, q) for p, q in zip(got, expected, strict=True))


def test_non_contiguous_input_and_gradient(device):
    a, grad = (torch.randn(7, 11, 3, device=device).transpose(0, 2) for _ in range(2))
    seed, results = SEED.to(device), []
    for x, g in ((a, grad), (a.contiguous(), grad.contiguous())):
        x = x.detach().requires_grad_()
        z = ops.hard_concrete(x, seed)
        results.append((z.detach(), *torch.autograd.grad(z, x, g)))
    assert results[0][0].shape == (3, 11, 7)
    assert all(torch.equal(p, q) for p, q in zip(*results, strict=True))


def test_nan_stays_nan_and_extremes_stay_finite(device):
    a = torch.tensor([0.0, float("nan"), 1.0, -1e4, 1e4], device=device)
    for seed in (SEED.to(device), None):
        assert ops.hard_concrete(a, seed).isnan().tolist() == [False, True, False, False, False]
        x = a[2:].clone().requires_grad_()
        (grad,) = torch.autograd.grad(ops.hard_concrete(x, seed, temperature=1e-4).sum(), x)
        assert torch.isfinite(grad).all() and (grad[1:] == 0).all()


def test_fullgraph_compile(device):
    a, seed = torch.randn(100, device=device, requires_grad=True), SEED.to(device)
    compiled = torch.compile(lambda x: ops.hard_concrete(x, seed).sum(), fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(ops.hard_concrete(a, seed).sum(), a)
    assert torch.equal(torch.autograd.grad(compiled(a), a)[0], expected)
