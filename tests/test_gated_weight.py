import pytest
import torch
from compare import assert_as_good_as_torch, away_from_kinks
from test_hard_concrete import SEED, unclamped
from torch.autograd import gradcheck

from l0fast import ops, reference

HALVES = [torch.float16, torch.bfloat16]
SHAPES = [  # weight, dim
    ((0,), None),
    ((1,), None),
    ((7, 11), None),
    ((33, 65), None),
    ((5, 3, 3, 3), None),
    ((6, 10), 0),
    ((6, 10), 1),
    ((6, 10), -1),
    ((300, 129), 0),
    ((300, 129), 1),
    ((16, 8, 3, 3), 0),
    ((16, 8, 3, 3), 1),
    ((24, 1, 5, 5), 0),
    ((4, 3, 5), 2),
    ((1, 3000), 0),
    ((3000, 1), 1),
    ((2, 40_000), 0),
    ((40_000, 2), 1),
    ((1001, 3), 1),
    ((3, 2, 9000), 1),
    ((1200, 5, 7), 1),
    ((0, 4), 1),
    ((4, 0), 0),
]
OPTIONS = [
    {},
    {"temperature": 0.1, "stream": 5},
    {"gamma": -0.4, "zeta": 1.3, "first_index": 3},
    {"bound": 1.5, "eval_temperature": False},
]


def operands(shape, dim, dtype=torch.float32):
    weight = torch.randn(shape).to(dtype)
    gates = shape if dim is None else (shape[dim],)
    return weight, (torch.randn(gates) * 2).to(dtype)


def run(function, weight, log_alpha, seed, dim, grad_v, factor, **options):
    """v, penalty and the gradients of ``sum grad_v v + factor penalty``."""
    weight, log_alpha = weight.clone().requires_grad_(), log_alpha.clone().requires_grad_()
    v, penalty = function(weight, log_alpha, seed, dim, **options)
    ((v * grad_v).sum() + factor * penalty).backward()
    return v.detach(), penalty.detach(), weight.grad, log_alpha.grad


@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_against_reference(native, shape, dim, options, seed):
    weight, log_alpha = operands(shape, dim)
    grad_v = torch.randn(shape)
    mask = away_from_kinks(unclamped(log_alpha.double(), seed, **options))
    results = [
        run(f, weight.to(t), log_alpha.to(t), seed, dim, grad_v.to(t), 0.3, **options)
        for f, t in ((ops.gated_weight, torch.float32), (reference.gated_weight, torch.float32))
    ]
    truth = run(reference.gated_weight, weight.double(), log_alpha.double(), seed, dim, grad_v.double(), 0.3, **options)
    for name, *three in zip(("v", "penalty", "grad weight"), *(r[:3] for r in (*results, truth)), strict=True):
        assert_as_good_as_torch(*three, name)
    assert_as_good_as_torch(*(r[3][mask] for r in (*results, truth)), "grad log_alpha")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("shape", "dim"), [((33, 65), None), ((6, 10), 0), ((16, 8, 3, 3), 1)], ids=str)
@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
def test_half_precision_is_float_arithmetic_rounded_once(native, dtype, shape, dim, seed):
    weight, log_alpha = operands(shape, dim, dtype)
    grad_v = torch.randn(shape).to(dtype)
    got = run(ops.gated_weight, weight, log_alpha, seed, dim, grad_v, 0.3)
    exact = run(ops.gated_weight, weight.float(), log_alpha.float(), seed, dim, grad_v.float(), 0.3)
    for name, a, b in zip(("v", "penalty", "grad weight", "grad log_alpha"), got, exact, strict=True):
        assert a.dtype == (torch.float32 if name == "penalty" else dtype)
        assert torch.equal(a, b.to(a.dtype)), name


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_conversions_of_every_bit_pattern(native, dtype):
    """v = weight where the gate is exactly 1: reads and writes each 16-bit float."""
    weight = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    v, _ = ops.gated_weight(weight, torch.full_like(weight, 20.0))
    assert torch.equal(v.isnan(), weight.isnan())
    assert torch.equal(v[~v.isnan()], weight[~v.isnan()])


@pytest.mark.parametrize(("shape", "dim"), [((5, 7), None), ((5, 7), 0), ((5, 7), 1), ((4, 3, 2, 2), 1)], ids=str)
@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
def test_gradcheck(shape, dim, seed):
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    log_alpha = torch.randn(shape if dim is None else (shape[dim],), dtype=torch.float64)
    stream = next(s for s in range(1000) if away_from_kinks(unclamped(log_alpha, seed, stream=s)).all() or seed is None)
    assert gradcheck(
        lambda w, a: ops.gated_weight(w, a, seed, dim, stream=stream), (weight, log_alpha.requires_grad_())
    )


@pytest.mark.parametrize(("shape", "dim"), [((300, 129), None), ((300, 1290), 1), ((1, 300_000), 0)], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_same_bits_on_any_number_of_threads(native, shape, dim, threads):
    weight, log_alpha = operands(shape, dim)
    grad_v = torch.randn(shape)
    expected = run(ops.gated_weight, weight, log_alpha, SEED, dim, grad_v, 1.0)
    torch.set_num_threads(threads)
    for a, b in zip(run(ops.gated_weight, weight, log_alpha, SEED, dim, grad_v, 1.0), expected, strict=True):
        assert torch.equal(a, b)


def scalars(temperature=0.5):
    return (0, 0, temperature, -0.1, 1.1, 20.0, 1e-6, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("zeros", ["none", "some", "all", "subnormal"])
def test_gates_from_the_quotient(native, dtype, zeros):
    """Backward with v = weight z given equals the one that draws the noise again, also where weights vanish."""
    weight, log_alpha = operands((40, 130), None, dtype)
    if zeros == "some":
        weight[::3, ::7] = 0
    elif zeros == "all":
        weight.zero_()
    elif zeros == "subnormal":
        weight *= torch.finfo(dtype).tiny
    grad_v = torch.randn(40, 130).to(dtype)
    raw = torch.ops.l0fast
    v, _ = raw.gated_weight(weight, log_alpha, SEED, None, False, *scalars())
    factor = torch.tensor(0.3, dtype=dtype)
    mask = away_from_kinks(unclamped(log_alpha.double(), SEED, temperature=0.5))
    drawn = raw.gated_weight_backward(grad_v, factor, weight, log_alpha, None, SEED, None, *scalars())
    divided = raw.gated_weight_backward(grad_v, factor, weight, log_alpha, v, SEED, None, *scalars())
    rounding = 8 * torch.finfo(dtype).eps
    for a, b in zip(drawn, divided, strict=True):
        torch.testing.assert_close(a[mask], b[mask], rtol=rounding, atol=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("factor", [None, torch.tensor([-0.3])], ids=["no penalty", "penalty"])
def test_backward_in_place(native, dtype, factor):
    weight, log_alpha = operands((33, 67), None, dtype)
    grad_v, raw = torch.randn(33, 67).to(dtype), torch.ops.l0fast
    factor = None if factor is None else factor.to(dtype)
    v, penalty = raw.gated_weight(weight, log_alpha, SEED, None, False, *scalars())
    assert penalty == 0
    expected = raw.gated_weight_backward(grad_v, factor, weight, log_alpha, v, SEED, None, *scalars())
    raw.gated_weight_backward_(grad_v, v, factor, weight, log_alpha, SEED, *scalars())
    assert torch.equal(grad_v, expected[0]) and torch.equal(v, expected[1])


def misaligned(t):
    """The same values one element further on: 16-byte reads are not possible there."""
    return torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize(
    ("shape", "dim"), [((33, 65), None), ((80, 128), 0), ((300, 129), 1), ((2, 40_000), 0), ((16, 8, 3, 3), 1)], ids=str
)
def test_misaligned_tensors(native, dtype, shape, dim):
    weight, log_alpha = operands(shape, dim, dtype)
    grad_v = torch.randn(shape).to(dtype)
    tensors = [misaligned(t) for t in (weight, log_alpha, grad_v)]
    raw = torch.ops.l0fast
    v, penalty = raw.gated_weight(*tensors[:2], SEED, dim, True, *scalars())
    factor = torch.tensor(0.3)
    grads = raw.gated_weight_backward(tensors[2], factor, *tensors[:2], None, SEED, dim, *scalars())
    expected = run(ops.gated_weight, weight, log_alpha, SEED, dim, grad_v, 0.3, temperature=0.5)
    for name, a, b in zip(
        ("v", "penalty", "grad weight", "grad log_alpha"), (v, penalty, *grads), expected, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=2 * torch.finfo(dtype).eps, atol=1e-6, msg=name)


def test_extremes_stay_finite(native):
    weight = torch.ones(5, requires_grad=True)
    log_alpha = torch.tensor([-1e4, -20.0, 0.0, 20.0, 1e4], requires_grad=True)
    for seed in (SEED, None):
        v, penalty = ops.gated_weight(weight, log_alpha, seed, temperature=1e-4)
        for tensor in (v, *torch.autograd.grad(v.sum() + penalty, (weight, log_alpha))):
            assert torch.isfinite(tensor).all()


def test_nan_and_infinity_pass_through(native):
    """Nothing bad turns into a number: a NaN weight or gate is a NaN in v, and in its own gradients."""
    weight = torch.tensor([1.0, float("nan"), 1.0, float("inf")], requires_grad=True)
    log_alpha = torch.tensor([float("nan"), 9.0, 9.0, 9.0], requires_grad=True)
    v, penalty = ops.gated_weight(weight, log_alpha)
    assert v.isnan().tolist() == [True, True, False, False] and v[3] == float("inf") and penalty.isnan()


def test_saves_only_parameters_and_seed(native):
    weight, log_alpha = (t.requires_grad_() for t in operands((30, 40), None))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.data_ptr()), x)[1], lambda x: x):
        ops.gated_weight(weight, log_alpha, SEED)
    assert set(saved) == {weight.data_ptr(), log_alpha.data_ptr(), SEED.data_ptr()}


def test_non_contiguous(native):
    weight, log_alpha = torch.randn(8, 6, 4).transpose(0, 2), torch.randn(12)[::2]
    v, _ = ops.gated_weight(weight, log_alpha, SEED, 1)
    torch.testing.assert_close(v, weight * ops.hard_concrete(log_alpha.contiguous(), SEED)[:, None])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(weight=[1.0]), TypeError, r"weight: expected a torch.Tensor, got list"),
        (dict(weight=torch.zeros(2, 3, dtype=torch.int32)), TypeError, r"weight: expected float16.*got int32"),
        (dict(log_alpha=torch.zeros(2, 3, dtype=torch.float64)), TypeError, r"log_alpha: expected torch.float32"),
        (dict(log_alpha=torch.zeros(5)), ValueError, r"log_alpha: expected a gate for each element .*got shape \[5\]"),
        (dict(dim=0, log_alpha=torch.zeros(3)), ValueError, r"log_alpha: expected 2 gates for dim 0"),
        (dict(dim=2), ValueError, r"dim: expected a dimension of weight \[2, 3\], got 2"),
        (dict(dim=-3), ValueError, r"dim: expected a dimension"),
        (dict(temperature=-1.0), ValueError, r"temperature: expected a positive number, got -1.0"),
        (dict(seed=3), TypeError, r"seed: expected an int64 tensor"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.gated_weight(**{"weight": torch.zeros(2, 3), "log_alpha": torch.zeros(2, 3), "seed": SEED, **arguments})


def test_raw_op_checks_too(native):
    raw, w = torch.ops.l0fast.gated_weight, torch.zeros(2, 3)
    with pytest.raises(
        RuntimeError, match=r"log_alpha: expected 3 gates for dim 1 of weight \[2, 3\], got shape \[2\]"
    ):
        raw(w, torch.zeros(2), None, 1, True, *scalars())
    with pytest.raises(RuntimeError, match=r"weight: expected a contiguous tensor"):
        raw(torch.zeros(4, 4).t(), torch.zeros(4, 4), None, None, True, *scalars())
    with pytest.raises(RuntimeError, match=r"grad_v: expected shape \[2, 3\], got \[3, 2\]"):
        torch.ops.l0fast.gated_weight_backward(torch.zeros(3, 2), None, w, w, None, None, None, *scalars())
    with pytest.raises(RuntimeError, match=r"dim: expected a dimension of weight \[2, 3\], got 7"):
        raw(w, torch.zeros(2), None, 7, True, *scalars())


@pytest.mark.parametrize("dim", [None, 0])
def test_opcheck_and_compile(native, dim):
    weight, log_alpha = operands((6, 4), dim)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    raw = torch.ops.l0fast
    torch.library.opcheck(raw.gated_weight.default, (weight, log_alpha, SEED, dim, True, *scalars()), test_utils=tests)
    backward = (weight, torch.tensor(1.0), weight, log_alpha, None, SEED, dim, *scalars())
    torch.library.opcheck(raw.gated_weight_backward.default, backward, test_utils=tests)

    def loss(w, a):
        v, penalty = ops.gated_weight(w, a, SEED, dim)
        return v.square().sum() + penalty

    weight.requires_grad_(), log_alpha.requires_grad_()
    expected = torch.autograd.grad(loss(weight, log_alpha), (weight, log_alpha))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(weight, log_alpha), (weight, log_alpha)), expected, strict=True):
        assert torch.equal(a, b)
