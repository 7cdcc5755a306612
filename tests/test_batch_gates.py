import pytest
import torch
from compare import assert_as_good_as_torch, away_from_kinks
from test_hard_concrete import SEED, unclamped
from torch.autograd import gradcheck

from l0fast import ops, reference


@pytest.mark.parametrize("options", [{}, {"temperature": 0.2, "stream": 7, "first_index": 5}], ids=str)
@pytest.mark.parametrize(
    ("shape", "batch"),
    [((5,), 3), ((3, 7), 4), ((1030,), 9), ((6,), 0), ((0,), 2), ((), 5), ((3,), 2003), ((130,), 75)],
    ids=str,
)
def test_against_reference(native, shape, batch, options):
    x, grad = torch.randn(shape) * 2, torch.randn(batch, *shape)
    results = []
    for function, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64)):
        a = x.clone().to(dtype).requires_grad_()
        z = function.batch_gates(a, SEED, batch, **options)
        (z * grad).sum().backward()
        results.append((z.detach(), a.grad))
    mask = away_from_kinks(unclamped(x.double().expand(batch, *shape), SEED, **options)).all(0)
    assert_as_good_as_torch(*(z for z, _ in results), "z")
    assert_as_good_as_torch(*(g[mask] for _, g in results), "gradient")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(native, dtype):
    a = torch.randn(100).to(dtype)
    assert torch.equal(ops.batch_gates(a, SEED, 3), ops.batch_gates(a.float(), SEED, 3).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gradient(native, dtype):
    a, grad = torch.randn(101).to(dtype), torch.randn(30, 101).to(dtype)
    scalars = (SEED, 0, 0, 0.5, -0.1, 1.1, 20.0, 1e-6)
    backward = torch.ops.l0fast.batch_gates_backward
    assert torch.equal(backward(grad, a, *scalars), backward(grad.float(), a.float(), *scalars).to(dtype))


def test_misaligned_tensors(native):
    """Tensors that begin where 16-byte reads are not possible."""
    a, grad = torch.randn(129)[1:], torch.randn(70 * 128 + 1)[1:].view(70, 128)
    scalars = (SEED, 0, 0, 0.5, -0.1, 1.1, 20.0, 1e-6)
    backward = torch.ops.l0fast.batch_gates_backward
    assert torch.equal(ops.batch_gates(a, SEED, 70), ops.batch_gates(a.clone(), SEED, 70))
    torch.testing.assert_close(backward(grad, a, *scalars), backward(grad.clone(), a.clone(), *scalars))


def test_examples_differ_and_shards_agree(native):
    a = torch.zeros(33)
    z = ops.batch_gates(a, SEED, 6)
    assert not torch.equal(z[0], z[1])
    assert torch.equal(z[4:], ops.batch_gates(a, SEED, 2, first_index=4 * 33))
    assert torch.equal(z[0], ops.hard_concrete(a, SEED))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_same_bits_on_any_number_of_threads(native, threads):
    def run():
        a = torch.linspace(-2, 2, 3000).requires_grad_()
        z = ops.batch_gates(a, SEED, 50)
        return z.detach(), torch.autograd.grad(z.square().sum(), a)[0]

    expected = run()
    torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(run(), expected, strict=True))


def test_gradcheck():
    a = torch.randn(4, dtype=torch.float64)
    stream = next(s for s in range(999) if away_from_kinks(unclamped(a.expand(3, 4), SEED, stream=s)).all())
    assert gradcheck(lambda x: ops.batch_gates(x, SEED, 3, stream=stream), (a.requires_grad_(),))


def test_opcheck_and_compile(native):
    a = torch.randn(10)
    scalars = (0, 0, 0.5, -0.1, 1.1, 20.0, 1e-6)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.l0fast.batch_gates.default, (a, SEED, 3, *scalars), test_utils=tests)
    torch.library.opcheck(
        torch.ops.l0fast.batch_gates_backward.default, (torch.ones(3, 10), a, SEED, *scalars), test_utils=tests
    )
    a.requires_grad_()
    compiled = torch.compile(lambda x: ops.batch_gates(x, SEED, 3).sum(), fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(ops.batch_gates(a, SEED, 3).sum(), a)
    assert torch.equal(torch.autograd.grad(compiled(a), a)[0], expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(log_alpha=torch.zeros(2, dtype=torch.int64)), TypeError, r"log_alpha: expected float16.*got int64"),
        (dict(seed=None), TypeError, r"seed: expected an int64 tensor of one element, got None"),
        (dict(batch=-1), ValueError, r"batch: expected at least 0, got -1"),
        (dict(batch=2.0), TypeError, r"batch: expected an int, got float"),
        (dict(temperature=0.0), ValueError, r"temperature"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.batch_gates(**{"log_alpha": torch.zeros(2), "seed": SEED, "batch": 3, **arguments})


def test_raw_op_checks_too(native):
    scalars = (0, 0, 0.5, -0.1, 1.1, 20.0, 1e-6)
    with pytest.raises(RuntimeError, match=r"batch: expected at least 0, got -3"):
        torch.ops.l0fast.batch_gates(torch.zeros(2), SEED, -3, *scalars)
    with pytest.raises(RuntimeError, match=r"grad_z: expected \[batch, shape of log_alpha \[2\]\], got \[3, 5\]"):
        torch.ops.l0fast.batch_gates_backward(torch.zeros(3, 5), torch.zeros(2), SEED, *scalars)
