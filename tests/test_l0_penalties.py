import gc
import weakref

import pytest
import torch
from compare import assert_as_good_as_torch
from torch.autograd import gradcheck

from l0fast import ops, reference

SIZES = [[0], [1], [1024, 3], [5, 0, 1021, 4099], [7] * 300, [1023, 1, 1, 2048, 64, 3001]]


def shapes_of(count: int):
    """Another temperature, gamma and zeta for each of `count` tensors."""
    temperatures = [0.1 + 0.3 * (k % 7) for k in range(count)]
    gammas = [-0.1 - 0.2 * (k % 3) for k in range(count)]
    zetas = [1.1 + 0.2 * (k % 4) for k in range(count)]
    return temperatures, gammas, zetas


@pytest.mark.parametrize("bound", [20.0, 1.5])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "+".join(map(str, sizes[:6])))
def test_forward_and_backward_against_reference(native, sizes, bound):
    values = [torch.randn(size) * 4 for size in sizes]
    results = []
    for function, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64)):
        inputs = [x.clone().to(dtype).requires_grad_() for x in values]
        penalty = function.l0_penalties(inputs, *shapes_of(len(sizes)), bound)
        (2.5 * penalty).backward()
        results.append((penalty.detach(), [x.grad for x in inputs]))
    assert_as_good_as_torch(*(p for p, _ in results), "penalty")
    for k in range(len(sizes)):
        assert_as_good_as_torch(*(grads[k] for _, grads in results), f"gradient {k}")


def test_one_tensor_is_l0_penalty(native):
    x = torch.randn(5000)
    options = {"temperature": 0.3, "gamma": -0.2, "zeta": 1.4}
    assert torch.equal(ops.l0_penalties([x], [0.3], [-0.2], [1.4]), ops.l0_penalty(x, **options))


def test_misaligned_tensors(native):
    """Tensors that begin where 16-byte reads are not possible."""
    xs = [torch.randn(size)[1:] for size in (4100, 7, 30)]
    grad = torch.tensor(0.7)
    for function, arguments in (
        (torch.ops.l0fast.l0_penalties, ()),
        (torch.ops.l0fast.l0_penalties_backward, (grad,)),
    ):
        got = function(*arguments, xs, *shapes_of(3), 20.0)
        torch.testing.assert_close(got, function(*arguments, [x.clone() for x in xs], *shapes_of(3), 20.0))


def test_sum_is_in_double(native):
    """A million gates of probability near 1 and as many tiny terms: a float32 sum of floats would lose the latter."""
    xs = [torch.full((2_000_000,), 20.0), *[torch.full((1000,), -8.0) for _ in range(50)]]
    count = len(xs)
    got = ops.l0_penalties(xs, [0.5] * count, [-0.1] * count, [1.1] * count)
    truth = reference.l0_penalties([x.double() for x in xs], [0.5] * count, [-0.1] * count, [1.1] * count)
    assert abs(got.item() - truth.item()) <= 0.13  # half a unit in the last place of 2e6, and sigmoid's own rounding


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_same_bits_on_any_number_of_threads(native, threads):
    xs = [torch.randn(size) for size in (100_003, 5, 17, 140_000, 3)]
    expected = ops.l0_penalties(xs, *shapes_of(5))
    torch.set_num_threads(threads)
    assert torch.equal(ops.l0_penalties(xs, *shapes_of(5)), expected)


def test_any_shape_and_stride(native):
    x = torch.randn(30, 40)
    xs = [x.t(), x[:, ::2], torch.randn(2, 3, 4), torch.randn(())]
    got = ops.l0_penalties(xs, *shapes_of(4))
    torch.testing.assert_close(got, reference.l0_penalties(xs, *shapes_of(4)))


def test_gradcheck():
    xs = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (4, 1, 6)]
    assert gradcheck(lambda *x: ops.l0_penalties(x, *shapes_of(3)), xs)


def test_shared_and_frozen_tensors():
    shared, frozen = torch.randn(9, requires_grad=True), torch.randn(9)
    ops.l0_penalties([shared, frozen, shared], [0.5] * 3, [-0.1] * 3, [1.1] * 3).backward()
    twice = shared.grad.clone()
    shared.grad = None
    ops.l0_penalty(shared, temperature=0.5).backward()
    torch.testing.assert_close(twice, 2 * shared.grad)
    assert frozen.grad is None


def test_no_graph_without_gradients(native):
    assert not ops.l0_penalties([torch.randn(4)], [0.5], [-0.1], [1.1]).requires_grad
    with torch.no_grad():
        assert not ops.l0_penalties([torch.randn(4, requires_grad=True)], [0.5], [-0.1], [1.1]).requires_grad


def test_nan_stays_nan(native):
    assert ops.l0_penalties([torch.tensor([0.0, float("nan")])], [0.5], [-0.1], [1.1]).isnan()


def test_saves_only_the_tensors(native):
    xs = [torch.randn(1000, requires_grad=True) for _ in range(3)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.data_ptr()), x)[1], lambda x: x):
        ops.l0_penalties(xs, *shapes_of(3))
    assert saved == [x.data_ptr() for x in xs]


def test_lists_keep_nothing_alive(native):
    """The stable ABI hands lists over as owned handles; one that is not given back would keep its tensors for ever."""
    xs = [torch.zeros(5, requires_grad=True) for _ in range(4)]
    ops.l0_penalties(xs, *shapes_of(4)).backward()
    references = [weakref.ref(t) for x in xs for t in (x, x.grad)]
    del xs
    gc.collect()
    assert [reference() for reference in references] == [None] * 8


GOOD = {"log_alphas": [torch.zeros(2)] * 2, "temperatures": [0.5] * 2, "gammas": [-0.1] * 2, "zetas": [1.1] * 2}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(log_alphas=torch.zeros(2)), TypeError, r"log_alphas: expected a list of tensors, got Tensor"),
        (dict(log_alphas=[]), ValueError, r"log_alphas: expected at least one tensor, got none"),
        (dict(log_alphas=[torch.zeros(2), 1.0]), TypeError, r"log_alphas\[1\]: expected a torch.Tensor, got float"),
        (dict(log_alphas=[torch.zeros(2).half()] * 2), TypeError, r"log_alphas\[0\]: expected .*got float16"),
        (
            dict(log_alphas=[torch.zeros(2), torch.zeros(2).double()]),
            TypeError,
            r"log_alphas\[1\]: expected torch.float32 on cpu as the first has, got torch.float64 on cpu",
        ),
        (
            dict(log_alphas=[torch.zeros(2), torch.zeros(2, device="meta")]),
            TypeError,
            r"log_alphas\[1\]: expected .*got torch.float32 on meta",
        ),
        (dict(temperatures=[0.5]), ValueError, r"temperatures: expected 2 numbers, one for each tensor, got 1"),
        (dict(temperatures=[0.5, 0.0]), ValueError, r"temperatures\[1\]: expected a positive number, got 0.0"),
        (dict(temperatures=[float("nan"), 1]), ValueError, r"temperatures\[0\]: .*got nan"),
        (dict(gammas=[0.1, -0.1]), ValueError, r"gammas\[0\]: expected a negative number, got 0.1"),
        (dict(zetas=[1.1, 0.9]), ValueError, r"zetas\[1\]: expected a number above 1, got 0.9"),
        (dict(zetas=[1.1] * 3), ValueError, r"zetas: expected 2 numbers"),
        (dict(bound=0.0), ValueError, r"bound: expected a positive number, got 0.0"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.l0_penalties(**{**GOOD, **arguments})


def test_raw_op_checks_too(native):
    raw = torch.ops.l0fast.l0_penalties
    good = ([0.5, 0.5], [-0.1, -0.1], [1.1, 1.1], 20.0)
    with pytest.raises(RuntimeError, match=r"log_alphas\[1\]: expected float32, got float64"):
        raw([torch.zeros(2), torch.zeros(2).double()], *good)
    with pytest.raises(RuntimeError, match=r"log_alphas\[0\]: expected a contiguous tensor"):
        raw([torch.zeros(4, 4).t(), torch.zeros(2)], *good)
    with pytest.raises(RuntimeError, match=r"temperatures: expected 1 numbers, one for each tensor, got 2"):
        raw([torch.zeros(2)], *good)
    with pytest.raises(RuntimeError, match=r"temperature: expected a positive number, got -1"):
        raw([torch.zeros(2)] * 2, [0.5, -1.0], *good[1:])
    with pytest.raises(RuntimeError, match=r"grad: expected one element, got shape \[2\]"):
        torch.ops.l0fast.l0_penalties_backward(torch.zeros(2), [torch.zeros(2)] * 2, *good)


def test_opcheck_and_compile(native):
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    xs = [torch.randn(9), torch.randn(2, 3)]
    arguments = (xs, *map(list, shapes_of(2)), 20.0)
    torch.library.opcheck(torch.ops.l0fast.l0_penalties.default, arguments, test_utils=tests)
    backward = torch.ops.l0fast.l0_penalties_backward.default
    torch.library.opcheck(backward, (torch.ones(()), *arguments), test_utils=tests)

    xs = [x.requires_grad_() for x in xs]
    compiled = torch.compile(lambda *x: ops.l0_penalties(x, *shapes_of(2)) * 3, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(ops.l0_penalties(xs, *shapes_of(2)) * 3, xs)
    for one, other in zip(torch.autograd.grad(compiled(*xs), xs), expected, strict=True):
        assert torch.equal(one, other)
