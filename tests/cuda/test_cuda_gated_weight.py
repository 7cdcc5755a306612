"""gated_weight and batch_gates on the device: mirrors tests/test_gated_weight.py and tests/test_batch_gates.py."""

import pytest
import torch
from compare import away_from_kinks
from cuda_cases import check, large, misaligned, same_bits
from test_gated_weight import HALVES, OPTIONS, SHAPES, operands, run, scalars
from test_hard_concrete import SEED, unclamped

from l0fast import ops

NAMES = ("v", "penalty", "grad weight", "grad log_alpha")


def placed(function, weight, log_alpha, seed, dim, grad_v, where, dtype=torch.float32, **options):
    weight, log_alpha, grad_v = (t.to(where, dtype) for t in (weight, log_alpha, grad_v))
    seed = None if seed is None else seed.to(where)
    return run(function, weight, log_alpha, seed, dim, grad_v, 0.3, **options)


@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_forward_and_backward(device, shape, dim, options, seed):
    weight, log_alpha = operands(shape, dim)
    grad_v = torch.randn(shape)
    mask = away_from_kinks(unclamped(log_alpha.double(), seed, **options))

    def call(functions, dtype, where):
        return placed(functions.gated_weight, weight, log_alpha, seed, dim, grad_v, where, dtype, **options)

    check(call, device, NAMES, {"grad log_alpha": mask})


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_large(device, dim):
    shape = (large(device) // 1000, 1000 + 7)
    weight, log_alpha = operands(shape, dim)
    grad_v = torch.randn(shape)
    mask = away_from_kinks(unclamped(log_alpha.double(), SEED))

    def call(functions, dtype, where):
        return placed(functions.gated_weight, weight, log_alpha, SEED, dim, grad_v, where, dtype)

    check(call, device, NAMES, {"grad log_alpha": mask})


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("shape", "dim"), [((33, 65), None), ((6, 10), 0), ((16, 8, 3, 3), 1)], ids=str)
@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
def test_half_precision_is_float_arithmetic_rounded_once(device, dtype, shape, dim, seed):
    weight, log_alpha = operands(shape, dim, dtype)
    grad_v = torch.randn(shape).to(dtype)
    got = placed(ops.gated_weight, weight, log_alpha, seed, dim, grad_v, device, dtype)
    exact = placed(ops.gated_weight, weight, log_alpha, seed, dim, grad_v, device)
    for name, a, b in zip(NAMES, got, exact, strict=True):
        assert a.dtype == (torch.float32 if name == "penalty" else dtype)
        assert torch.equal(a, b.to(a.dtype)), name


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_conversions_of_every_bit_pattern(device, dtype):
    """v = weight where the gate is exactly 1: reads and writes each 16-bit float."""
    weight = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).to(device)
    v, _ = ops.gated_weight(weight, torch.full_like(weight, 20.0))
    assert torch.equal(v.isnan(), weight.isnan())
    assert torch.equal(v[~v.isnan()], weight[~v.isnan()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "dim"), [((37, 13), None), ((64, 16), None), ((37, 16), 0), ((37, 16), 1)], ids=str)
def test_misaligned_pointers(device, dtype, shape, dim):
    """The same bits, but for sums, whose order may be another one."""
    weight, log_alpha = (t.to(device) for t in operands(shape, dim, dtype))
    grad_v, seed = torch.randn(shape).to(device, dtype), SEED.to(device)
    expected = run(ops.gated_weight, weight, log_alpha, seed, dim, grad_v, 0.3)
    for k in range(3):
        tensors = [weight, log_alpha, grad_v]
        tensors[k] = misaligned(tensors[k], device)
        w, a = (t.detach().requires_grad_() for t in tensors[:2])
        v, penalty = ops.gated_weight(w, a, seed, dim)
        grads = torch.autograd.grad((v, penalty), (w, a), (tensors[2], torch.full_like(penalty, 0.3)))
        got = (v.detach(), penalty.detach(), *grads)
        for name, x, y in zip(NAMES, got, expected, strict=True):
            is_sum = name == "penalty" or (name == "grad log_alpha" and dim is not None)
            rounding = 8 * torch.finfo(x.dtype).eps if is_sum else 0.0
            torch.testing.assert_close(x, y, rtol=rounding, atol=rounding, msg=lambda m, name=name: f"{name}: {m}")


def test_non_contiguous(device):
    weight, log_alpha = (t.to(device) for t in operands((40, 30), None))
    seed, grad_v = SEED.to(device), torch.randn(30, 40, device=device)
    got = run(ops.gated_weight, weight.t(), log_alpha.t(), seed, None, grad_v, 0.3)
    expected = run(ops.gated_weight, weight.t().contiguous(), log_alpha.t().contiguous(), seed, None, grad_v, 0.3)
    assert same_bits(got, expected)


@pytest.mark.parametrize(("shape", "dim"), [((300, 129), None), ((300, 1290), 1), ((3, 30_000), 0)], ids=str)
def test_same_bits_twice(device, shape, dim):
    weight, log_alpha = operands(shape, dim)
    grad_v = torch.randn(shape)
    results = [placed(ops.gated_weight, weight, log_alpha, SEED, dim, grad_v, device) for _ in range(3)]
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("zeros", ["none", "some", "all", "subnormal"])
def test_gates_from_the_quotient(device, dtype, zeros):
    """Backward with v = weight z given equals the one that draws the noise again, also where weights vanish."""
    weight, log_alpha = operands((40, 130), None, dtype)
    if zeros == "some":
        weight[::3, ::7] = 0
    elif zeros == "all":
        weight.zero_()
    elif zeros == "subnormal":
        weight *= torch.finfo(dtype).tiny
    mask = away_from_kinks(unclamped(log_alpha.double(), SEED, temperature=0.5)).to(device)
    weight, log_alpha, seed = weight.to(device), log_alpha.to(device), SEED.to(device)
    grad_v, factor = torch.randn(40, 130).to(device, dtype), torch.tensor(0.3, dtype=dtype, device=device)
    raw = torch.ops.l0fast
    v, _ = raw.gated_weight(weight, log_alpha, seed, None, False, *scalars())
    drawn = raw.gated_weight_backward(grad_v, factor, weight, log_alpha, None, seed, None, *scalars())
    divided = raw.gated_weight_backward(grad_v, factor, weight, log_alpha, v, seed, None, *scalars())
    rounding = 8 * torch.finfo(dtype).eps
    for a, b in zip(drawn, divided, strict=True):
        torch.testing.assert_close(a[mask], b[mask], rtol=rounding, atol=rounding)


# -- batch_gates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 0.2, "stream": 7, "first_index": 5}], ids=str)
@pytest.mark.parametrize(
    ("shape", "batch"), [((5,), 3), ((3, 7), 4), ((1030,), 9), ((6,), 0), ((0,), 2), ((), 5), ((4099,), 33)], ids=str
)
def test_batch_gates(device, shape, batch, options):
    x, grad = torch.randn(shape) * 2, torch.randn(batch, *shape)
    mask = away_from_kinks(unclamped(x.double().expand(batch, *shape), SEED, **options)).all(0)

    def call(functions, dtype, where):
        a = x.to(where, dtype).requires_grad_()
        z = functions.batch_gates(a, SEED.to(where), batch, **options)
        return z, *torch.autograd.grad(z, a, grad.to(where, dtype))

    check(call, device, ("z", "gradient"), {"gradient": mask})


def test_batch_gates_shards_and_views(device):
    a, seed = torch.randn(33, device=device), SEED.to(device)
    z = ops.batch_gates(a, seed, 6)
    assert torch.equal(z[4:], ops.batch_gates(a, seed, 2, first_index=4 * 33))
    assert torch.equal(z[0], ops.hard_concrete(a, seed))
    assert torch.equal(z, ops.batch_gates(misaligned(a, device), seed, 6))
    for dtype in HALVES:
        half = a.to(dtype)
        assert torch.equal(ops.batch_gates(half, seed, 3), ops.batch_gates(half.float(), seed, 3).to(dtype))
