"""Bounds and mass of the weights: exact on what get_weights returns, with and without pruning, resumed and refitted."""

import warnings

import numpy as np
import pytest
import torch
from model_problem import N_RECORDS, make, survey
from scipy import optimize
from test_budget import problem

from l0fast.calibration import SparseCalibrationWeights
from l0fast.calibration.constraints import checked_constraints

SHAPES = [
    (20, 300, 0.2, 80),
    (100, 1000, 0.05, 500),
    (30, 400, 0.2, 100),
    (60, 3000, 0.02, 650),
    (200, 2000, 0.03, 600),
]
"""Targets, records, density, budget."""
WAYS = {
    "dense": (False, {"lambda_l0": 0.0}),
    "price": (True, {"lambda_l0": 1e-4}),
    "budget": (True, {"exact": True}),
    "refit": (True, {"exact": True, "refit": True}),
}
OPTIONS = {"lr": 0.1, "loss_type": "relative"}
BOTH = {"mass": "conserve", "max_weight_ratio": 5}


def returned(model) -> np.ndarray:
    """The weights in double precision, and that chance has no part in them."""
    weights = model.get_weights(deterministic=True).detach()
    assert weights.dtype == torch.float32 and torch.equal(model.get_weights(), weights)
    return weights.double().numpy()


def case(number, gates=True, **options):
    n_targets, n, density, k = SHAPES[number]
    M, y = problem(n_targets, n, density, seed=100 + number)
    initial = np.random.default_rng(number).lognormal(0, 0.5, n)
    given = {"beta": 0.35, "init_keep_prob": 0.9, "init_weights": initial, "log_weight_jitter_sd": 0.05, "seed": number}
    return M, y, initial, k, SparseCalibrationWeights(n, use_gates=gates, **{**given, **options})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_total_and_ratio_are_exact(number, way):
    gates, options = WAYS[way]
    M, y, initial, k, model = case(number, gates)
    if "exact" in options:
        options = {**options, "target_records": k}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(M, y, epochs=400, **OPTIONS, **options, **BOTH)
    weights = returned(model)
    assert abs(weights.sum() - initial.sum()) <= 1e-9 * initial.sum()
    assert (weights / initial).max() <= 5
    assert np.count_nonzero(weights) == {"dense": len(weights), "price": np.count_nonzero(weights)}.get(way, k)
    assert np.abs(M @ weights / y - 1).mean() < (1e-3 if way in ("dense", "refit") else 0.06)


@pytest.mark.parametrize("way", ["dense", "price", "refit"])
def test_bounds_of_each_record_hold_for_those_kept(way):
    gates, options = WAYS[way]
    M, y, initial, _, model = case(2, gates)
    generator = np.random.default_rng(1)
    low, high = initial * generator.uniform(0.3, 0.9, len(initial)), initial * generator.uniform(1.1, 2, len(initial))
    high[::7] = np.inf
    if way == "refit":
        options = {**options, "target_records": 300}
    model.fit(M, y, epochs=300, **OPTIONS, **options, bounds=(low, torch.from_numpy(high)), min_weight=0.2)
    weights = returned(model)
    kept = weights > 0
    assert (weights[kept] >= np.maximum(low, 0.2)[kept]).all() and (weights <= high).all()
    assert kept.all() if way == "dense" else 0 < kept.sum() < len(kept)
    touched = (weights[kept] < np.maximum(low, 0.2)[kept] * 1.01) | (weights[kept] > high[kept] * 0.99)
    assert touched.any(), "the bounds were in the way"


def test_engine_holds_the_bounds_during_the_run():
    M, y = survey()
    model, seen = make(log_weight_jitter_sd=0.5), []
    look = lambda *_: seen.append(torch.exp(model.log_weight.detach()))  # noqa: E731
    model.fit(M, y, epochs=30, verbose_freq=1, callback=look, bounds=(0.9, 1.2), **OPTIONS)
    assert len(seen) == 30
    for weights in seen:
        assert (weights.double() >= 0.9).all() and (weights.double() <= 1.2).all()
    assert (seen[-1] == seen[-1].max()).sum() > 10, "many want out"


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 3e4, 1e30])
def test_bounds_are_kept_as_parameters_that_cannot_break_them(size):
    """The nearest parameters within: no rounding of a logarithm or exponential leaves the bounds."""
    model = SparseCalibrationWeights(20_000)
    low = size * np.geomspace(0.9, 1.1, 20_000)
    high = low * (1 + 1e-5)
    constraints = checked_constraints(model, bounds=(low, high))
    for theta, bound in ((constraints.low, low), (constraints.high, high)):
        weights = torch.exp(theta).double().numpy()
        assert (low <= weights).all() and (weights <= high).all()
        spacing = 1.2e-7 * (1 + np.abs(np.log(bound)))
        assert (np.abs(weights / bound - 1) < 2 * spacing).all()
    open_ = checked_constraints(model, bounds=(0, np.inf))
    assert (open_.low == -np.inf).all() and (open_.high == np.inf).all()


def test_one_weight_is_left_to_choose():
    """Bounds of a single number hold where an exponential is exactly that number."""
    M, y = survey()
    weights = returned(make(use_gates=False).fit(M, y, epochs=20, lambda_l0=0.0, bounds=(1.0, 1.0), mass="conserve"))
    assert (weights == 1).all()


@pytest.mark.parametrize("pieces", [(120, 80), (7, 40, 3, 101, 49)])
@pytest.mark.parametrize("budget", [{"target_records": 120, "exact": True}, {"lambda_l0": 1e-4}])
def test_a_run_in_pieces_has_the_bits_of_one_run(pieces, budget):
    M, y = survey()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        one = make(log_weight_jitter_sd=0.05).fit(M, y, epochs=200, **OPTIONS, **budget, **BOTH)
        many = make(log_weight_jitter_sd=0.05)
        for k, epochs in enumerate(pieces):
            many.fit(M, y, epochs=epochs, resume=k > 0, **OPTIONS, **budget, **BOTH)
            assert returned(many).sum() == pytest.approx(N_RECORDS, rel=1e-9)
    assert torch.equal(one.log_weight, many.log_weight) and torch.equal(one.log_alpha, many.log_alpha)
    np.testing.assert_array_equal(one.history["data_loss"], many.history["data_loss"])


def test_checkpoint_carries_what_the_end_has_changed(tmp_path):
    M, y = survey()
    path = tmp_path / "run.safetensors"
    options = {**OPTIONS, **BOTH, "target_records": 120}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        first = make().fit(M, y, epochs=75, checkpoint=path, **options)
        loaded = make().load_checkpoint(path)
        np.testing.assert_array_equal(returned(loaded), returned(first))
        loaded.fit(M, y, epochs=125, resume=True, **options)
        whole = make().fit(M, y, epochs=200, **options)
    assert torch.equal(loaded.log_weight, whole.log_weight) and torch.equal(loaded.log_alpha, whole.log_alpha)
    for change, name in (
        ({"max_weight_ratio": 6}, "bounds, min_weight or max_weight_ratio"),
        ({"min_weight": 0.1}, "bounds, min_weight or max_weight_ratio"),
        ({"mass": "free"}, "mass"),
        ({"anchor": "initial"}, "anchor"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint .*: {name} is not that of the saved run"):
            make().load_checkpoint(path).fit(M, y, resume=True, **{**options, **change})


def test_initial_weights_are_those_given_and_may_be_others():
    M, y, initial, _, model = case(0, False)
    np.testing.assert_array_equal(model.initial_weights, initial)
    model.fit(M, y, epochs=50, lambda_l0=0.0, **OPTIONS)
    model.fit(M, y, epochs=50, lambda_l0=0.0, **OPTIONS, **BOTH)
    assert returned(model).sum() == pytest.approx(initial.sum(), rel=1e-9), "not those of the run before"
    model.initial_weights = initial * 2
    model.fit(M, y, epochs=50, lambda_l0=0.0, **OPTIONS, **BOTH)
    assert returned(model).sum() == pytest.approx(2 * initial.sum(), rel=1e-9)


def test_refit_has_constraints_of_its_own():
    M, y, initial, _, model = case(2)
    model.fit(M, y, epochs=300, target_records=150, exact=True, **OPTIONS)
    assert (returned_ratio := (model.get_weights(True).detach().double().numpy() / initial).max()) > 4
    model.refit(M, y, epochs=200, loss_type="relative", mass="conserve", max_weight_ratio=4)
    weights = returned(model)
    assert (weights / initial).max() <= 4 < returned_ratio
    assert weights.sum() == pytest.approx(initial.sum(), rel=1e-9)
    assert np.abs(M @ weights / y - 1).mean() < 1e-3


def test_refit_ends_at_the_best_weights_of_that_total():
    """Targets that want other weights, and more of them: beside scipy's, where the total has a weight of 10^4."""
    generator = np.random.default_rng(4)
    M = generator.uniform(0.1, 1, (60, 20))
    y = M @ generator.uniform(1.5, 2.5, 20)
    A = np.vstack([M / (y + 1)[:, None], np.full((1, 20), 1e4)])
    best, norm = optimize.nnls(A, np.append(y / (y + 1), 20e4))
    assert best.sum() == pytest.approx(20, rel=1e-6)
    model = SparseCalibrationWeights(20, init_keep_prob=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # so few weights have no sum that is right to 1e-9
        model.refit(M, y, epochs=4000, lr=0.05, loss_type="relative", mass="conserve")
    w = returned(model)
    assert w.sum() == pytest.approx(20, rel=1e-7)
    assert np.square((M @ w - y) / (y + 1)).sum() < 1.001 * norm**2


@pytest.mark.parametrize("refit", [False, True])
def test_path_passes_them_through(refit):
    M, y, initial, _, model = case(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        points = model.path([200, 120], M, y, epochs=250, exact=True, refit=refit, **OPTIONS, **BOTH)
        fit = case(2)[-1].fit(M, y, epochs=250, target_records=200, exact=True, refit=refit, **OPTIONS, **BOTH)
    assert [p.records for p in points] == [200, 120] and model.epoch == 500
    np.testing.assert_array_equal(points[0].weights, fit.get_weights(deterministic=True).detach().numpy())
    for point in points:
        weights = point.weights.astype(float)
        assert weights.sum() == pytest.approx(initial.sum(), rel=1e-9) and (weights / initial).max() <= 5
    with pytest.raises(ValueError, match=r"mass: expected .* got at most .* from any 10 records"):
        case(2)[-1].path([200, 10], M, y, **OPTIONS, **BOTH)


@pytest.mark.parametrize("refit", [False, True])
def test_anchor_is_what_weights_are_compared_with(refit):
    M, y = survey()
    generator = np.random.default_rng(3)
    initial = generator.uniform(0.5, 2, N_RECORDS)
    options = {**OPTIONS, "epochs": 100, "lambda_l0": 1e-4, "refit": refit}

    def weights(**more):
        return make(init_weights=initial).fit(M, y, **options, **more).get_weights(True).detach()

    torch.testing.assert_close(weights(lambda_l2=0.04, anchor=2.0), weights(lambda_l2=0.01))
    assert torch.equal(weights(lambda_l2=0.01, anchor="initial"), weights(lambda_l2=0.01, anchor=initial))
    anchor = np.where(np.arange(N_RECORDS) < 200, 0.1, 1e3)  # dear, and free
    dear, free = weights(lambda_l2=0.01, anchor=anchor).numpy().reshape(2, 200).sum(axis=1)
    assert free > 5 * dear
