import math

import pytest
import torch
from compare import assert_as_good_as_torch
from random_columns import columns

from l0fast import constants as c
from l0fast import ops, reference

SEED = torch.tensor([99])
N_MOMENTS = 4


def start(n, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    log_weight = torch.randn(n, generator=generator) * 0.3
    log_alpha = torch.randn(n, generator=generator) + 1
    return [log_weight.to(dtype), log_alpha.to(dtype), *(torch.zeros(n, dtype=dtype) for _ in range(N_MOMENTS))]


def problem(m, n, dtype=torch.float32, row_type=torch.uint16, tolerances=False, anchor=False):
    indptr, rows, values = columns(m, n, dtype=torch.float32, row_type=row_type)
    targets = torch.rand(m, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 100 + 50
    omega = torch.linspace(0.5, 2, m, dtype=torch.float64) / m
    return (
        *(indptr, rows, values.to(dtype), targets, targets + 1, omega),
        torch.full((m,), 0.02, dtype=torch.float64) if tolerances else None,
        torch.linspace(0.5, 2, n).to(dtype) if anchor else None,
        SEED,
    )


OPTIONS = [
    dict(),
    dict(gates=False, lambda_l0=0.0),
    dict(rho=c.RHO_EPSILON_SQUARE),
    dict(rho=c.RHO_CAPPED_ABSOLUTE, cap=0.4),
    dict(lambda_l2=0.0, temperature=2 / 3, gamma=-0.3, zeta=1.5, bound=3.0, first_index=11),
    dict(low=-0.1, high=0.2),
    dict(high=0.1),
]


def with_bounds(options, n, dtype=torch.float64):
    """The options, each bound a tensor: infinite for some records."""
    bounds = {name: torch.full((n,), options[name], dtype=dtype) for name in ("low", "high") if name in options}
    for step, (name, bound) in enumerate(bounds.items(), start=3):
        bound[::step] = -math.inf if name == "low" else math.inf
    return {**options, **bounds}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("anchor", [False, True], ids=["no anchor", "anchor"])
def test_float64_equals_reference_and_adam(native, options, anchor):
    """Thirty epochs with torch.optim.Adam: the same state at each of them, to rounding."""
    m, n = 40, 700
    settings = {"temperature": 0.35, "lambda_l0": 1e-3, "lambda_l2": 1e-3, "lr": 0.05, **with_bounds(options, n)}
    arguments = problem(m, n, torch.float64, tolerances="rho" in options, anchor=anchor)
    ours, theirs = start(n, torch.float64), start(n, torch.float64)
    for epoch in range(30):
        got = ops.calibration_epochs_(*ours, *arguments, first_epoch=epoch, **settings)
        expected = reference.calibration_epochs_(*theirs, *arguments, first_epoch=epoch, **settings)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def bias_of(dtype=torch.float32, value=60.0):
    names = ("bias", "bias_exp_avg", "bias_exp_avg_sq")
    return {name: torch.full((1,), x, dtype=dtype) for name, x in zip(names, (value, 0.0, 0.0), strict=True)}


LINEAR = [
    *(dict(), dict(bias=True), dict(bias=True, gates=False, lambda_l0=0.0), dict(bias=True, first_index=11)),
    *(dict(low=0.0, high=0.3), dict(lambda_l1=1e-4), dict(low=-0.2, lambda_l1=1e-3, gates=False, bias=True)),
]


@pytest.mark.parametrize("options", LINEAR, ids=str)
@pytest.mark.parametrize("anchor", [False, True], ids=["no anchor", "anchor"])
@pytest.mark.parametrize("shape", [(40, 700), (2500, 60)], ids=str)
def test_linear_weights_equal_reference_and_adam(native, shape, options, anchor):
    """Signed weights, some of them exactly 0, and a bias: sixty epochs with torch.optim.Adam."""
    m, n = shape
    settings = {"temperature": 0.35, "lambda_l0": 1e-2, "lambda_l2": 1e-2, "lr": 0.05, **with_bounds(options, n)}
    bias = settings.pop("bias", False)
    arguments = problem(m, n, torch.float64, anchor=anchor)
    runs = []
    for function in (ops, reference):
        state, extra = start(n, torch.float64), bias_of(torch.float64) if bias else {}
        state[0][::7] = 0
        assert (state[0] < 0).any()
        runs.append((function, state, extra))
    for epoch in range(60):
        metrics = []
        for function, state, extra in runs:
            options = {"first_epoch": epoch, "link": c.LINK_IDENTITY, **extra, **settings}
            metrics.append(function.calibration_epochs_(*state, *arguments, **options))
        torch.testing.assert_close(*metrics, rtol=1e-9, atol=1e-11)
        for a, b in zip(*([*state, *extra.values()] for _, state, extra in runs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    (_, state, extra), _ = runs
    assert "lambda_l1" in settings or (state[0][::7] != 0).any()
    assert not extra or extra["bias"].item() != 60


def test_the_bias_leaves_the_noise_of_the_records_alone(native):
    """The same gates with and without it: the first epoch's open gates and penalty agree."""
    rows = []
    for extra in ({}, bias_of()):
        rows.append(ops.calibration_epochs_(*start(700), *problem(40, 700), link=c.LINK_IDENTITY, **extra))
    assert torch.equal(rows[0][:, 1:], rows[1][:, 1:]) and rows[0][0, 0] != rows[1][0, 0]


@pytest.mark.parametrize("link", [c.LINK_EXP, c.LINK_IDENTITY])
def test_hundred_float32_epochs_as_good_as_torch(native, link):
    """Losses and weights after 100 epochs: at most twice the error of plain torch in float32."""
    m, n = 77, 3001
    settings = {"temperature": 0.35, "lambda_l0": 1e-4, "lambda_l2": 1e-6, "lr": 0.02, "epochs": 100, "link": link}
    results = []
    for function, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64)):
        state = start(n, dtype)
        metrics = function.calibration_epochs_(*state, *problem(m, n, dtype), **settings)
        results.append((metrics, state))
    # The losses are float64 in all three; as values of a float32 run they are compared as float32.
    assert_as_good_as_torch(
        *(r[0][:, 0].to(d) for r, d in zip(results, (torch.float32, torch.float32, torch.float64), strict=True)),
        "losses",
    )
    for k, what in enumerate(("log_weight", "log_alpha")):
        assert_as_good_as_torch(*(r[1][k] for r in results), what)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("row_type", [torch.uint16, torch.int32])
def test_same_bits_on_any_number_of_threads(native, threads, row_type):
    def run():
        state = start(40_000)
        return ops.calibration_epochs_(*state, *problem(300, 40_000), lr=0.1, epochs=5, lambda_l0=1e-5), *state

    expected = run()
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))


@pytest.mark.parametrize("link", [c.LINK_EXP, c.LINK_IDENTITY])
@pytest.mark.parametrize("chunks", [[20], [1] * 20, [7, 13], [19, 1]])
def test_chunks_equal_one_run(native, chunks, link):
    settings = {"lr": 0.1, "lambda_l0": 1e-4, "link": link}
    whole, bias = start(3001), bias_of()
    expected = ops.calibration_epochs_(*whole, *problem(77, 3001), epochs=20, **bias, **settings)
    state, metrics, done, own = start(3001), [], 0, bias_of()
    for count in chunks:
        options = {"epochs": count, "first_epoch": done, **own, **settings}
        metrics.append(ops.calibration_epochs_(*state, *problem(77, 3001), **options))
        done += count
    assert torch.equal(torch.cat(metrics), expected)
    assert all(torch.equal(a, b) for a, b in zip([*state, *own.values()], [*whole, *bias.values()], strict=True))


def test_stops_before_a_loss_that_is_not_finite(native):
    for function in (ops, reference):
        state, arguments = start(50), problem(5, 50)
        state[0][arguments[0].diff().argmax()] = float("nan")  # a record that has nonzeros
        before = [x.clone() for x in state]
        metrics = function.calibration_epochs_(*state, *arguments, epochs=3, gates=False)
        assert not math.isfinite(metrics[0, 0]) and metrics[1:].isnan().all()
        assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(state, before, strict=True))


def test_zero_epochs_change_nothing(native):
    state = start(50)
    before = [x.clone() for x in state]
    assert ops.calibration_epochs_(*state, *problem(5, 50), epochs=0).shape == (0, 4)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))


def test_autograd_sees_the_change(native):
    state = start(50)
    log_weight = state[0].requires_grad_()
    y = (log_weight * log_weight).sum()
    ops.calibration_epochs_(*state, *problem(5, 50))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_rho_values_match_the_header():
    from pathlib import Path

    header = (Path(__file__).parents[1] / "csrc/math/objective.h").read_text()
    expected = f"kSquare = {c.RHO_SQUARE}, kEpsilonSquare = {c.RHO_EPSILON_SQUARE}, "
    assert expected + f"kCappedAbsolute = {c.RHO_CAPPED_ABSOLUTE}" in header


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (1, torch.zeros(3), r"log_alpha: expected shape \[50\]"),
        (2, torch.zeros(50, dtype=torch.float64), r"weight_exp_avg: expected torch.float32"),
        (9, torch.zeros(5), r"targets: expected float64, got float32"),
        (10, torch.zeros(4, dtype=torch.float64), r"scales: expected shape \[5\], got \[4\]"),
        (13, torch.zeros(4), r"anchor: expected shape \[50\]"),
    ],
)
def test_bad_tensors(native, position, value, message):
    arguments = [*start(50), *problem(5, 50)]
    arguments[position] = value
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        ops.calibration_epochs_(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(bias_exp_avg=None), r"bias_exp_avg: expected it along with bias, got None"),
        (dict(bias=torch.zeros(2)), r"bias: expected shape \[1\], got \[2\]"),
        (dict(bias_exp_avg_sq=torch.zeros(1, dtype=torch.float64)), r"bias_exp_avg_sq: expected torch.float32"),
        (dict(bias=3.0), r"bias: expected a torch.Tensor, got float"),
        (dict(link=7), r"link: expected LINK_EXP"),
    ],
)
def test_bad_bias_and_link(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ops.calibration_epochs_(*start(50), *problem(5, 50), **{**bias_of(), **change})


@pytest.mark.parametrize("name", ["lambda_l0", "lambda_l2", "lambda_l1", "lr"])
def test_bad_scalars(name):
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{name}: expected a finite non-negative number"):
            ops.calibration_epochs_(*start(50), *problem(5, 50), **{name: value})


@pytest.mark.parametrize("bias", [(None, None, None), tuple(torch.zeros(1) for _ in range(3))], ids=["no bias", "bias"])
def test_opcheck(native, bias):
    bounds = (None, torch.zeros(50))
    gate = (True, 0.5, -0.1, 1.1, 20.0, 1e-6)
    rest = (0, math.inf, SEED, 0, 2, 0, c.LINK_EXP, *gate, 0.0, 0.0, 0.0, 0.1, 0.9, 0.999, 1e-8)
    torch.library.opcheck(
        torch.ops.l0fast.calibration_epochs_.default,
        (*start(50), *bias, *problem(5, 50)[:-1], *bounds, *rest),
        test_utils=("test_schema", "test_faketensor"),
    )
