import pytest
import torch
from compare import assert_as_good_as_torch
from torch.autograd import gradcheck

from l0fast import ops, reference

OPTIONS = [{}, {"temperature": 0.1}, {"temperature": 3.0, "gamma": -0.5, "zeta": 1.7}, {"bound": 1.5}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 5, 1021, 4099])
def test_forward_and_backward_against_reference(native, size, options):
    x = torch.randn(size) * 4
    results = []
    for function, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64)):
        a = x.clone().to(dtype).requires_grad_()
        penalty = function.l0_penalty(a, **options)
        (2.5 * penalty).backward()
        results.append((penalty.detach(), a.grad))
    assert_as_good_as_torch(*(p for p, _ in results), "penalty")
    assert_as_good_as_torch(*(g for _, g in results), "gradient")


def test_gradcheck():
    a = torch.randn(15, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: ops.l0_penalty(x), (a,))


def test_is_the_share_of_open_gates(native):
    """P(z != 0) is what sampling gives: a million draws, four standard errors."""
    count = 1_000_000
    a = torch.full((count,), -1.0)
    p = ops.l0_penalty(a).item() / count
    share = (ops.hard_concrete(a, torch.tensor([3])) != 0).double().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_same_bits_on_any_number_of_threads(native, threads):
    a = torch.randn(100_003)
    expected = ops.l0_penalty(a)
    torch.set_num_threads(threads)
    assert torch.equal(ops.l0_penalty(a), expected)


def test_non_contiguous(native):
    a = torch.randn(30, 40).t()
    assert torch.equal(ops.l0_penalty(a), ops.l0_penalty(a.contiguous()))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(log_alpha=1.0), TypeError, r"log_alpha: expected a torch.Tensor, got float"),
        (dict(log_alpha=torch.zeros(2, dtype=torch.int16)), TypeError, r"log_alpha: expected .*, got int16"),
        (dict(temperature=-1.0), ValueError, r"temperature: expected a positive number, got -1.0"),
        (dict(gamma=0.1), ValueError, r"gamma"),
        (dict(zeta=0.9), ValueError, r"zeta"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.l0_penalty(**{"log_alpha": torch.zeros(2), **arguments})


def test_opcheck(native):
    scalars = (0.5, -0.1, 1.1, 20.0)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.l0fast.l0_penalty.default, (torch.randn(9), *scalars), test_utils=tests)
    arguments = (torch.ones(()), torch.randn(9), *scalars)
    torch.library.opcheck(torch.ops.l0fast.l0_penalty_backward.default, arguments, test_utils=tests)
