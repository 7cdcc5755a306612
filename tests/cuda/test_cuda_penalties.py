"""l0_penalty and l0_penalties on the device: mirrors tests/test_l0_penalty.py and tests/test_l0_penalties.py."""

import pytest
import torch
from cuda_cases import check, large, misaligned
from test_l0_penalties import SIZES as MANY
from test_l0_penalties import shapes_of

from l0fast import ops, reference

OPTIONS = [{}, {"temperature": 0.1}, {"gamma": -0.5, "zeta": 1.7, "bound": 1.5}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 3, 255, 1025, 4099, "large"])
def test_penalty_and_gradient(device, size, options):
    x = torch.randn(large(device) if size == "large" else size) * 4

    def call(functions, dtype, where):
        a = x.to(where, dtype).requires_grad_()
        penalty = functions.l0_penalty(a, **options)
        return penalty, *torch.autograd.grad(2.5 * penalty, a)

    check(call, device, ("penalty", "gradient"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes(device, dtype):
    a = torch.randn(4099).to(dtype)
    wide = a.double() if dtype == torch.float64 else a.float()
    got, expected = ops.l0_penalty(a.to(device)), reference.l0_penalty(wide.double())
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.cpu().double(), expected, rtol=1e-13 if dtype == torch.float64 else 1e-6, atol=0)


def test_the_sum_is_in_double(device):
    """Gates of probability near 1 and as many tiny terms: a float32 sum of floats would lose the latter."""
    n = large(device)
    x = torch.cat([torch.full((n,), 20.0), torch.full((n // 4,), -12.0)])
    truth = reference.l0_penalty(x.double()).item()
    assert abs(ops.l0_penalty(x.to(device)).item() - truth) <= 2.0**-24 * truth + n * 1e-7 * 0.3


@pytest.mark.parametrize("size", [1, 5, 4099])
def test_misaligned_and_non_contiguous(device, size):
    a = torch.randn(size, 3, device=device)
    expected = ops.l0_penalty(a)
    # Added up in another order, perhaps, but in double: at most the last bit of the result differs.
    torch.testing.assert_close(ops.l0_penalty(misaligned(a, device)), expected, rtol=2e-7, atol=0)
    assert torch.equal(ops.l0_penalty(a.t()), ops.l0_penalty(a.t().contiguous()))


def test_same_bits_twice(device):
    a = torch.randn(large(device), device=device)
    assert len({ops.l0_penalty(a).item() for _ in range(5)}) == 1
    xs = [torch.randn(size, device=device) for size in (100_003, 5, 17, 3)]
    assert len({ops.l0_penalties(xs, *shapes_of(4)).item() for _ in range(5)}) == 1


@pytest.mark.parametrize("bound", [20.0, 1.5])
@pytest.mark.parametrize("sizes", [*MANY, [0, 0], ["large", 1]], ids=lambda sizes: "+".join(map(str, sizes[:6])))
def test_penalties_of_many_tensors(device, sizes, bound):
    values = [torch.randn(large(device) if size == "large" else size) * 4 for size in sizes]
    names = ["penalty", *(f"gradient {k}" for k in range(len(sizes)))]

    def call(functions, dtype, where):
        inputs = [x.to(where, dtype).requires_grad_() for x in values]
        penalty = functions.l0_penalties(inputs, *shapes_of(len(sizes)), bound)
        return penalty, *torch.autograd.grad(2.5 * penalty, inputs)

    check(call, device, names)


def test_penalties_of_views_and_frozen_gates(device):
    xs = [misaligned(torch.randn(1021), device), torch.randn(30, 40, device=device).t(), torch.randn(5, device=device)]
    expected = ops.l0_penalties([x.contiguous().clone() for x in xs], *shapes_of(3))
    inputs = [x.requires_grad_(k != 1) for k, x in enumerate(xs)]
    got = ops.l0_penalties(inputs, *shapes_of(3))
    torch.testing.assert_close(got.detach(), expected, rtol=2e-7, atol=0)
    got.backward()
    assert inputs[1].grad is None and inputs[0].grad is not None and inputs[2].grad is not None
