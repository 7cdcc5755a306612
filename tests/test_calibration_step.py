from types import SimpleNamespace

import numpy as np
import pytest
import torch
from compare import assert_as_good_as_torch
from model_problem import make, survey
from test_calibration_epochs import problem, start

from l0fast import _load, ops, reference
from l0fast import constants as c
from l0fast.calibration import stepwise, trainer
from l0fast.calibration.objective import build_objective
from l0fast.calibration.state import RunState

STATE = 6
RESTRICTED = dict(link=c.LINK_IDENTITY, lambda_l1=1e-3)


def split(m, n, dtype=torch.float32, row_type=torch.uint16, anchor=False, bounds=False):
    """The problem of the epochs' tests: matrix, what the loss needs, anchor and bounds, seed."""
    indptr, rows, values, targets, scales, omega, _, anchor, seed = problem(m, n, dtype, row_type, anchor=anchor)
    low, high = (torch.full((n,), x, dtype=dtype) for x in (-0.2, 0.3)) if bounds else (None, None)
    if bounds:
        low[::3], high[::4] = -torch.inf, torch.inf
    return (indptr, rows, values), (targets, scales, omega), (anchor, low, high, seed)


def slopes_of(loss, totals):
    """omega rho' / scale for rho = x^2, rounded as math/objective.h rounds it."""
    targets, scales, omega = loss
    x = (totals - targets) / scales
    return omega * (2 * x) / scales


def arguments():
    matrix, _, (anchor, low, high, seed) = split(5, 50, anchor=True, bounds=True)
    slopes = torch.ones(5, dtype=torch.float64)
    return [*start(50), torch.ones(50), *matrix, 5, slopes, anchor, low, high, seed]


def run(functions, state, parts, epochs, settings, first_epoch=0):
    """Epochs by steps: totals before each of them and after the last, and the steps' sums."""
    matrix, loss, (*limits, seed) = parts
    gate, n_targets = torch.empty_like(state[0]), len(loss[0])
    totals, sums = functions.calibration_step_(
        *state, gate, *matrix, n_targets, None, *limits, seed, epoch=first_epoch, **settings
    )
    results = [(totals, sums)]
    for epoch in range(first_epoch, first_epoch + epochs):
        slopes = slopes_of(loss, totals)
        totals, sums = functions.calibration_step_(
            *state, gate, *matrix, n_targets, slopes, *limits, seed, epoch=epoch, **settings
        )
        results.append((totals, sums))
    return results, gate


OPTIONS = [
    dict(),
    dict(gates=False, lambda_l0=0.0),
    dict(lambda_l2=0.0, temperature=2 / 3, gamma=-0.3, zeta=1.5, bound=3.0, first_index=11),
    RESTRICTED,
    dict(RESTRICTED, lambda_l1=0.0, gates=False),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(40, 700), (2500, 60)], ids=str)
def test_float64_equals_reference(native, shape, options):
    """Totals, sums, gates, parameters and moments at each of thirty epochs."""
    settings = {"temperature": 0.35, "lambda_l0": 1e-3, "lambda_l2": 1e-3, "lr": 0.05, **options}
    parts = split(*shape, torch.float64, anchor=True, bounds=True)
    states = [start(shape[1], torch.float64) for _ in range(2)]
    for first in range(0, 30, 10):
        ours, theirs = (run(f, s, parts, 10, settings, first) for f, s in zip((ops, reference), states, strict=True))
        for got, expected in zip(ours[0], theirs[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
        for a, b in zip((*states[0], ours[1]), (*states[1], theirs[1]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("row_type", [torch.uint16, torch.int32], ids=str)
def test_the_bits_of_calibration_epochs(native, dtype, options, row_type):
    """With the slopes of the same loss: every parameter, moment and sum of fifty epochs."""
    settings = {"temperature": 0.35, "lambda_l0": 1e-3, "lambda_l2": 1e-3, "lr": 0.05, **options}
    matrix, loss, (anchor, low, high, seed) = parts = split(77, 3001, dtype, row_type, anchor=True, bounds=True)
    whole, stepped = start(3001, dtype), start(3001, dtype)
    metrics = ops.calibration_epochs_(
        *(*whole, *matrix, *loss, None, anchor, seed), low=low, high=high, epochs=50, **settings
    )
    results, _ = run(ops, stepped, parts, 50, settings)
    assert all(torch.equal(a, b) for a, b in zip(whole, stepped, strict=True))
    assert torch.equal(metrics[:, 1:3], torch.stack([sums[:2] for _, sums in results[1:]]))
    assert torch.equal(metrics[:, 3], torch.stack([sums[2] for _, sums in results[:-1]]))


def test_float32_as_good_as_torch(native):
    results = []
    for functions, dtype in ((ops, torch.float32), (reference, torch.float32), (reference, torch.float64)):
        state = start(3001, dtype)
        settings = {"temperature": 0.35, "lambda_l0": 1e-4, "lambda_l2": 1e-6, "lr": 0.02}
        run(functions, state, split(77, 3001, dtype), 20, settings)
        results.append(state)
    for k, what in enumerate(("log_weight", "log_alpha")):
        assert_as_good_as_torch(*(state[k] for state in results), what)


@pytest.mark.parametrize("threads", [1, 4])
def test_same_bits_on_any_number_of_threads(native, threads):
    def states():
        state = start(40_000)
        results, gate = run(ops, state, split(300, 40_000), 3, {"lr": 0.1, "lambda_l0": 1e-5})
        return [*state, gate, *(x for pair in results for x in pair)]

    expected = states()
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(states(), expected, strict=True))


@pytest.mark.parametrize("n", [0, 1, 3, 1025])
def test_edge_sizes(native, n):
    parts = split(5, n, torch.float64, bounds=True)
    states = [start(n, torch.float64) for _ in range(2)]
    runs = [run(f, s, parts, 3, {"lambda_l0": 0.1}) for f, s in zip((ops, reference), states, strict=True)]
    for got, expected in zip(*(results for results, _ in runs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_no_targets(native):
    parts = split(5, 4)
    parts = ((torch.zeros(5, dtype=torch.int64), *(x[:0] for x in parts[0][1:])), [x[:0] for x in parts[1]], parts[2])
    state = start(4)
    results, _ = run(ops, state, parts, 2, {"lambda_l0": 0.1})
    assert results[-1][0].shape == (0,) and (state[1] < start(4)[1]).all()


def test_without_slopes_only_the_gates_change(native):
    (matrix, loss, limits), state = split(40, 700), start(700)
    gate = torch.full((700,), 9.0)
    totals, sums = ops.calibration_step_(*state, gate, *matrix, len(loss[0]), None, *limits, epoch=4, lambda_l2=1.0)
    assert all(torch.equal(a, b) for a, b in zip(state, start(700), strict=True))
    assert torch.equal(gate, ops.hard_concrete(state[1], limits[-1], stream=4))
    assert sums.tolist() == [0, 0, int(gate.count_nonzero())]
    torch.testing.assert_close(
        totals, reference.column_totals((state[0].exp() * gate).double(), *matrix[:2], matrix[2].double(), 40)
    )


def test_the_step_uses_the_gates_given(native):
    """A closed record's matrix gradient is skipped, whatever its draw would have been."""
    matrix, _, limits = split(40, 700)
    state, gate = start(700), torch.zeros(700)
    ops.calibration_step_(*state, gate, *matrix, 40, torch.ones(40, dtype=torch.float64), *limits, lr=0.1)
    assert torch.equal(state[0], start(700)[0])
    assert gate.count_nonzero() > 0


# -- bounds and shrinkage ---------------------------------------------------------------------------------------------


def test_a_closed_record_is_bounded_and_keeps_adams_moments(native):
    matrix, loss, (_, _, _, seed) = split(40, 700)
    state = start(700)
    state[1][:100] = -20.0  # closed in every draw
    state[2][:100], state[3][:100] = 1.0, 1.0  # a first moment that still pushes down
    low = torch.full((700,), -0.01)
    before = state[0].clone()
    ops.calibration_epochs_(*state, *matrix, *loss, None, None, seed, low=low, lr=0.02, epochs=3)
    assert (state[0] >= low).all()
    moved = before[:100] > 0.1
    assert moved.any() and (state[0][:100][moved] < before[:100][moved]).all()
    assert torch.allclose(state[2][:100], torch.tensor(0.9**3))


@pytest.mark.parametrize("function", [ops, reference], ids=["kernel", "reference"])
def test_shrinkage_makes_exact_zeros_and_none_without(native, function):
    matrix, loss, (_, _, _, seed) = split(40, 700, torch.float64)
    zeros = []
    for lambda_l1 in (0.0, 1e-2):
        state = start(700, torch.float64)
        function.calibration_epochs_(
            *(*state, *matrix, *loss, None, None, seed), link=c.LINK_IDENTITY, lambda_l1=lambda_l1, epochs=40, lr=0.05
        )
        zeros.append(int((state[0] == 0).sum()))
    assert zeros[0] == 0 and 0 < zeros[1] <= 700


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_restricted_step_by_hand(native, dtype):
    """No gradient: Adam moves nothing; 1.5, -1.5 and 0.1 shrink by lr lambda_l1 / (sqrt(v_hat) + epsilon)."""
    matrix = (torch.zeros(5, dtype=torch.int64), torch.zeros(0, dtype=torch.uint16), torch.zeros(0, dtype=dtype))
    state = [torch.tensor([1.5, -1.5, 0.1, 1.5], dtype=dtype), *(torch.zeros(4, dtype=dtype) for _ in range(5))]
    v_hat = 0.25
    state[3][:] = v_hat * (1 - c.ADAM_BETA2) / c.ADAM_BETA2
    low, high = (torch.tensor(x, dtype=dtype) for x in ([-9, -1, -9, -9], [9, 9, 9, 0.25]))
    gate, none = torch.ones(4, dtype=dtype), torch.zeros(1, dtype=torch.float64)
    ops.calibration_step_(
        *(*state, gate, *matrix, 1, none, None, low, high, torch.tensor([1])),
        gates=False, lr=0.1, lambda_l1=1.0, link=c.LINK_IDENTITY,
    )  # fmt: skip
    expected = torch.tensor([1.5 - 0.1 / 0.5, -1.0, 0.0, 0.25], dtype=dtype)
    torch.testing.assert_close(state[0], expected, rtol=1e-6, atol=1e-6)
    assert state[0][2] == 0


def test_a_nan_is_not_bounded_away(native):
    matrix, _, (_, low, high, seed) = split(40, 700, bounds=True)
    state = start(700)
    state[0][5], none = torch.nan, torch.zeros(40, dtype=torch.float64)
    ops.calibration_step_(
        *(*state, torch.ones(700), *matrix, 40, none, None, low, high, seed), link=c.LINK_IDENTITY, lambda_l1=0.1
    )
    assert state[0][5].isnan()


# -- through the trainer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_type", ["relative", "relative_epsilon", "capped_mape", "mse"])
def test_stepwise_follows_the_engine(native, loss_type):
    """Forty epochs: the residuals in Python round otherwise, so to a tolerance."""
    M, y = survey()
    lr = 1e-3 if loss_type == "capped_mape" else 0.05  # a sign that flips early would be followed by all the rest
    options = SimpleNamespace(lambda_l2=1e-6, lr=lr)
    results = []
    for epochs in (trainer.engine_epochs, stepwise.step_epochs):
        model = make(log_weight_jitter_sd=0.05)
        matrix = model.pack(M)
        tolerances = {"target_tolerances": 0.01} if loss_type == "relative_epsilon" else {}
        objective = build_objective(y, matrix.n_targets, loss_type, **tolerances)
        run = RunState.new(torch.tensor([3]), model._trained())
        run.lambda_l0 = 1e-4
        with torch.no_grad():
            metrics = []
            for _ in range(2):
                metrics.append(epochs(model, run, matrix, objective, options, 20))
                run.epoch += 20
        results.append((np.concatenate(metrics), model.log_weight.detach(), model.log_alpha.detach()))
    (metrics, *trained), (expected, *also) = results
    np.testing.assert_allclose(metrics, expected, rtol=1e-4)
    for a, b in zip(trained, also, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_stepwise_stops_at_a_loss_that_is_not_finite(native):
    model, (M, y) = make(), survey()
    matrix = model.pack(M)
    with torch.no_grad():
        model.log_weight[:] = torch.nan
    before = [x.detach().clone() for x in model.parameters()]
    run = RunState.new(torch.tensor([3]), model._trained())
    objective = build_objective(y, matrix.n_targets, "relative")
    metrics = stepwise.step_epochs(model, run, matrix, objective, SimpleNamespace(lambda_l2=0.0, lr=0.1), 3)
    assert not np.isfinite(metrics[0, 0]) and np.isnan(metrics[1:]).all()
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(model.parameters(), before, strict=True))


def test_without_the_library_the_reference_does_it(monkeypatch):
    """With every option other than its default: each arrives there."""
    monkeypatch.setattr(_load, "_NATIVE_ERROR", "none")
    monkeypatch.setenv("L0FAST_FALLBACK", "1")
    settings = dict(epoch=3, first_index=8, gates=True, temperature=0.4, gamma=-0.2, zeta=1.2, bound=2.0, lr=0.3)
    settings |= dict(RESTRICTED, lambda_l0=0.1, lambda_l2=0.2)
    results = []
    for function in (ops.calibration_step_, reference.calibration_step_):
        given = arguments()
        results.append([*function(*given, **settings), *given[: STATE + 1]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
