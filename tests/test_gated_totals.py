import pytest
import torch
from compare import assert_as_good_as_torch, away_from_kinks
from random_columns import columns
from test_hard_concrete import unclamped
from torch.autograd import gradcheck

from l0fast import constants as c
from l0fast import ops, reference

SEED = torch.tensor([42])
SHAPES = [(1, 1), (1, 1000), (7, 3), (77, 3001), (3000, 500)]
OPTIONS = [
    {},
    {"gates": False},
    {"temperature": 0.35, "stream": 7, "first_index": 5},
    {"gamma": -0.5, "zeta": 1.7, "bound": 1.5},
    {"eval_temperature": False},
    {"link": c.LINK_IDENTITY},
    {"link": c.LINK_IDENTITY, "gates": False},
]


def problem(m, n, dtype, row_type=torch.uint16, spread=3.0):
    generator = torch.Generator().manual_seed(5)
    log_weight = torch.randn(n, generator=generator)
    log_alpha = torch.randn(n, generator=generator) * spread
    indptr, rows, values = columns(m, n, dtype=torch.float32, row_type=row_type)
    return log_weight.to(dtype), log_alpha.to(dtype), indptr, rows, values.to(dtype), m


@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_against_reference(native, shape, options, seed):
    m, n = shape
    pull = torch.randn(m)
    results = []
    for function, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64)):
        log_weight, log_alpha, *matrix = problem(m, n, dtype)
        log_weight.requires_grad_(), log_alpha.requires_grad_()
        totals, penalty = function.gated_totals(log_weight, log_alpha, *matrix, seed, **options)
        ((totals * pull).sum() + 0.3 * penalty).backward()
        results.append((totals.detach(), penalty.detach(), log_weight.grad, log_alpha.grad))
    log_alpha = problem(m, n, torch.float64)[1]
    gate = {k: v for k, v in options.items() if k not in ("gates", "link")}
    mask = away_from_kinks(unclamped(log_alpha, seed, **gate))
    for k, what in enumerate(("totals", "penalty", "log_weight.grad", "log_alpha.grad")):
        chosen = [r[k][mask] if k == 3 else r[k] for r in results]
        assert_as_good_as_torch(*chosen, what)


def test_a_weight_of_zero_behind_an_open_gate_has_a_gradient(native):
    """Under the identity link a column is skipped where its gate is 0, not where its weight is."""
    _, log_alpha, *matrix = problem(77, 3001, torch.float32)
    pull = torch.randn(77)
    gradients = []
    for function in (ops, reference):
        weight = torch.zeros(3001, requires_grad=True)
        totals, _ = function.gated_totals(weight, log_alpha, *matrix, SEED, link=c.LINK_IDENTITY)
        assert not totals.any()
        (totals * pull).sum().backward()
        gradients.append(weight.grad)
    opened = (ops.hard_concrete(log_alpha, SEED) > 0) & (matrix[0].diff() > 0)
    assert opened.any() and (gradients[0][opened] != 0).all()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("row_type", [torch.uint16, torch.int32])
def test_row_types_agree(native, row_type):
    first = ops.gated_totals(*problem(77, 3001, torch.float32), SEED)[0]
    assert torch.equal(first, ops.gated_totals(*problem(77, 3001, torch.float32, row_type), SEED)[0])


@pytest.mark.parametrize("link", [c.LINK_EXP, c.LINK_IDENTITY])
def test_closed_columns_are_never_read(native, link):
    """Where most gates are closed, a closed record contributes exactly nothing, even where its column holds NaN."""
    log_weight, log_alpha, indptr, rows, values, m = problem(77, 301, torch.float32)
    closed = torch.arange(301) % 4 != 0
    log_alpha[closed] = -40
    expected = ops.gated_totals(log_weight, log_alpha, indptr, rows, values, m, SEED, link=link)[0]
    poisoned = torch.where(torch.repeat_interleave(closed, indptr.diff()), torch.nan, values)
    log_weight.requires_grad_(), log_alpha.requires_grad_()
    totals, _ = ops.gated_totals(log_weight, log_alpha, indptr, rows, poisoned, m, SEED, link=link)
    totals.sum().backward()
    assert torch.equal(totals.detach(), expected)
    assert torch.isfinite(log_weight.grad).all() and torch.isfinite(log_alpha.grad).all()


def ragged(lengths, m, row_type=torch.int32):
    """Columns of the given lengths, rows drawn without repetition."""
    generator = torch.Generator().manual_seed(8)
    rows = [torch.randperm(m, generator=generator)[:length].sort().values for length in lengths]
    indptr = torch.tensor([0, *lengths]).cumsum(0)
    return (
        indptr,
        torch.cat([torch.empty(0), *rows]).to(row_type),
        torch.randn(int(indptr[-1]), generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("row_type", [torch.uint16, torch.int32])
@pytest.mark.parametrize("typical", [3, 10, 20, 30, 41, 60, 200])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.4, 0.0], ids="open {}".format)
def test_columns_of_every_length(native, dtype, row_type, typical, share):
    """Empty, short, long and very long columns, at every width of a strip and in mostly open and closed blocks."""
    generator = torch.Generator().manual_seed(typical)
    lengths = torch.randint(0, 2 * typical, (2500,), generator=generator).tolist()
    lengths[::97] = [0] * len(lengths[::97])
    lengths[5:2500:500] = [15, 16, 17, 64, 65]
    lengths[130:136] = [900] * 6  # a strip of more nonzeros than its buffer holds
    m = 1000
    indptr, rows, values = ragged(lengths, m, row_type)
    n = len(lengths)
    opened = torch.rand(n, generator=generator) < share
    log_alpha = torch.where(opened, 30.0, -30.0)
    log_weight, pull = torch.randn(n, generator=generator), torch.randn(m, generator=generator)
    results = []
    for function, real in ((ops, dtype), (reference, dtype), (reference, torch.float64)):
        w = log_weight.clone().to(real).requires_grad_()
        totals, _ = function.gated_totals(w, log_alpha.to(real), indptr, rows, values.to(real), m)
        (totals * pull.to(real)).sum().backward()
        results.append((totals.detach(), w.grad))
    if dtype == torch.float64:
        torch.testing.assert_close(results[0], results[2], rtol=1e-12, atol=1e-12)
    else:
        assert_as_good_as_torch(*(r[0] for r in results), "totals")
        assert_as_good_as_torch(*(r[1] for r in results), "log_weight.grad")
    assert (results[0][1][~opened] == 0).all()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_same_bits_on_any_number_of_threads(native, threads):
    arguments = problem(300, 40_000, torch.float32)
    expected = ops.gated_totals(*arguments, SEED)
    torch.set_num_threads(threads)
    got = ops.gated_totals(*arguments, SEED)
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])


@pytest.mark.parametrize("gates", [True, False])
@pytest.mark.parametrize("link", [c.LINK_EXP, c.LINK_IDENTITY])
def test_gradcheck(link, gates):
    log_weight, log_alpha, *matrix = problem(5, 12, torch.float64, spread=1.0)
    stream = next(s for s in range(200) if away_from_kinks(unclamped(log_alpha, SEED, stream=s)).all())
    parameters = (log_weight.requires_grad_(), log_alpha.requires_grad_())
    options = {"stream": stream, "link": link, "gates": gates}
    assert gradcheck(lambda w, a: ops.gated_totals(w, a, *matrix, SEED, **options), parameters)


def test_empty_columns_and_no_nonzeros(native):
    n = 10
    indptr, rows, values = torch.zeros(n + 1, dtype=torch.int64), torch.empty(0, dtype=torch.int32), torch.empty(0)
    totals, penalty = ops.gated_totals(torch.zeros(n), torch.zeros(n), indptr, rows, values, 3, SEED)
    assert torch.equal(totals, torch.zeros(3)) and penalty > 0


def test_link_values_match_the_header():
    from pathlib import Path

    header = (Path(__file__).parents[1] / "csrc/math/link.h").read_text()
    assert f"kExp = {c.LINK_EXP}, kIdentity = {c.LINK_IDENTITY} " in header


def test_saves_references_only(native):
    log_weight, log_alpha, *matrix = problem(77, 3001, torch.float32)
    inputs = [log_weight.requires_grad_(), log_alpha.requires_grad_(), *matrix[:3], SEED]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.data_ptr()), x)[1], lambda x: x):
        ops.gated_totals(log_weight, log_alpha, *matrix, SEED)
    assert set(saved) <= {x.data_ptr() for x in inputs}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(log_weight=torch.zeros(4, 3)), ValueError, r"log_weight: expected one dimension"),
        (dict(log_alpha=torch.zeros(3)), ValueError, r"log_alpha: expected shape \[12\]"),
        (dict(log_alpha=torch.zeros(12, dtype=torch.float64)), TypeError, r"log_alpha: expected torch.float32"),
        (dict(values=torch.zeros(1, dtype=torch.float64)), TypeError, r"values: expected torch.float32"),
        (dict(temperature=0), ValueError, r"temperature"),
        (dict(seed=3), TypeError, r"seed: expected an int64 tensor"),
        (dict(link=2), ValueError, r"link: expected LINK_EXP \(0\) or LINK_IDENTITY \(1\), got 2"),
    ],
)
def test_bad_input(change, error, message):
    names = ("log_weight", "log_alpha", "indptr", "rows", "values", "n_targets")
    arguments = dict(zip(names, problem(5, 12, torch.float32), strict=True))
    with pytest.raises(error, match=message):
        ops.gated_totals(**{**arguments, "seed": SEED, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rows=lambda r: torch.full_like(r.int(), 5)), r"rows: expected 0 <= row < 5"),
        (dict(rows=lambda r: -torch.ones_like(r.int())), r"rows: expected 0 <= row < 5"),
        (dict(rows=lambda r: r.long()), r"rows: expected uint16 or int32, got int64"),
        (dict(rows=lambda r: r[:-1]), r"rows: expected shape"),
        (dict(indptr=lambda p: p.flip(0)), r"indptr: expected to run from 0"),
        (dict(indptr=lambda p: torch.cat([p[:1], p[2:3], p[1:2], p[3:]])), r"indptr: expected non-decreasing"),
        (dict(indptr=lambda p: p[:-1]), r"indptr: expected shape \[13\]"),
        (dict(n_targets=lambda m: -1), r"n_targets: expected a count"),
    ],
)
def test_bad_matrix(native, change, message):
    """Contents of the matrix are checked where the kernel reads it: no index goes out of bounds."""
    names = ("log_weight", "log_alpha", "indptr", "rows", "values", "n_targets")
    arguments = dict(zip(names, problem(5, 12, torch.float32, torch.int32), strict=True))
    for name, function in change.items():
        arguments[name] = function(arguments[name])
    with pytest.raises(RuntimeError, match=message):
        ops.gated_totals(**arguments, seed=SEED)


def test_opcheck_and_compile(native):
    tensors = problem(5, 12, torch.float32)
    scalars = (0, 0, c.LINK_EXP, True, 0.5, -0.1, 1.1, 20.0, 1e-6, True)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.l0fast.gated_totals.default, (*tensors, SEED, *scalars), test_utils=tests)
    arguments = (torch.ones(5), torch.ones(()), *tensors[:5], SEED, *scalars)
    torch.library.opcheck(torch.ops.l0fast.gated_totals_backward.default, arguments, test_utils=tests)
    log_weight = tensors[0].clone().requires_grad_()

    def loss(w):
        totals, penalty = ops.gated_totals(w, *tensors[1:], SEED)
        return totals.square().sum() + penalty

    (expected,) = torch.autograd.grad(loss(log_weight), log_weight)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(compiled(log_weight), log_weight)
    assert torch.equal(got, expected)


def test_forward_mode_keeps_the_tangent(native):
    """The kernels know none; where it is asked for, the reference answers: it must not come out as absent."""
    matrix = columns(6, 8, density=0.5, dtype=torch.float64)
    x, a, tangent = (torch.randn(8, dtype=torch.float64) for _ in range(3))
    with torch.autograd.forward_ad.dual_level():
        totals, _ = ops.gated_totals(torch.autograd.forward_ad.make_dual(x, tangent), a, *matrix, 6, SEED)
        got = torch.autograd.forward_ad.unpack_dual(totals).tangent
    jacobian = torch.autograd.functional.jacobian(lambda v: ops.gated_totals(v, a, *matrix, 6, SEED)[0], x)
    torch.testing.assert_close(got, jacobian @ tangent)
