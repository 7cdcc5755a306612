"""Records chosen by an L1 norm: what it costs, where it ends, and what it cannot be mixed with."""

import warnings

import numpy as np
import pytest
import torch
from model_problem import N_RECORDS, make, survey
from scipy import optimize

from l0fast.calibration import SparseCalibrationWeights

OPTIONS = {"lr": 0.05, "loss_type": "relative", "epochs": 600}


def fitted(M, y, price, **model) -> SparseCalibrationWeights:
    return make(**model).fit(M, y, l1_lambda=price, **OPTIONS)


def weights_of(model) -> np.ndarray:
    weights = model.get_weights(deterministic=True).detach()
    assert torch.equal(model.get_weights(), weights), "no gate is left to chance"
    return weights.double().numpy()


def test_ends_where_the_lasso_does():
    """Beside scipy's bounded quasi-Newton method on the same smooth problem: u >= 0 makes the L1 norm a sum."""
    M, y = survey()
    initial = np.random.default_rng(0).lognormal(0, 0.5, N_RECORDS)
    A, b, price = (M.toarray() * initial) / (y + 1)[:, None], y / (y + 1), 1e-3

    def cost(u):
        return np.square(A @ u - b).sum() + price * u.sum()

    best = optimize.minimize(
        cost, np.ones(N_RECORDS), jac=lambda u: 2 * A.T @ (A @ u - b) + price, bounds=[(0, None)] * N_RECORDS,
        method="L-BFGS-B", options={"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-10},
    )  # fmt: skip
    model = make(init_weights=initial).fit(M, y, l1_lambda=price, loss_type="relative", lr=0.1, epochs=6000)
    u = weights_of(model) / initial
    assert best.success and cost(u) < 1.0005 * best.fun
    assert np.count_nonzero(u) <= 35, "a vertex has at most as many records as targets"
    assert np.count_nonzero(u[best.x > 0.05]) >= 25, "and it is nearly the same one"


def test_a_higher_price_keeps_fewer():
    M, y = survey()
    counts, errors = [], []
    for price in (0.0, 1e-4, 1e-3, 1e-2):
        w = weights_of(fitted(M, y, price))
        counts.append(np.count_nonzero(w))
        errors.append(np.abs(M @ w / y - 1).mean())
    assert counts[0] == N_RECORDS and sorted(counts, reverse=True) == counts and counts[-1] < 100
    assert sorted(errors) == errors and errors[1] < 1e-3


def test_unit_is_a_record_with_its_initial_weight():
    """Weights ten times as large, targets too: the same price keeps the same records, at ten times the weight."""
    M, y = survey()
    one = weights_of(make().fit(M, y, l1_lambda=1e-3, target_scales=y, **OPTIONS))
    ten = weights_of(make(init_weights=10.0).fit(M, 10 * y, l1_lambda=1e-3, target_scales=10 * y, **OPTIONS))
    assert ((one > 0) == (ten > 0)).mean() > 0.99
    np.testing.assert_allclose(ten.sum(), 10 * one.sum(), rtol=1e-3)


def test_the_refit_has_the_same_records():
    M, y = survey()
    plain, refitted = fitted(M, y, 3e-3), make().fit(M, y, l1_lambda=3e-3, refit=True, **OPTIONS)
    assert ((weights_of(plain) > 0) == (weights_of(refitted) > 0)).all()
    before, after = (np.abs(M @ weights_of(model) / y - 1).mean() for model in (plain, refitted))
    assert after < 0.2 * before


@pytest.mark.parametrize("price", [1e-3, 0.1])
def test_constraints_hold_too(price):
    M, y = survey()
    initial = np.random.default_rng(0).lognormal(0, 0.5, N_RECORDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model = make(init_weights=initial)
        model.fit(M, y, l1_lambda=price, mass="conserve", max_weight_ratio=5, min_weight=0.1, **OPTIONS)
    w = weights_of(model)
    assert w.sum() == pytest.approx(initial.sum(), rel=1e-9) and (w / initial).max() <= 5
    assert 0 < np.count_nonzero(w) < N_RECORDS and w[w > 0].min() >= 0.1


def test_records_that_are_closed_or_weigh_nothing_stay_out():
    M, y = survey()
    keep = np.where(np.arange(N_RECORDS) < 50, 0.0, 0.5)
    initial = np.where(np.arange(N_RECORDS) >= 350, 0.0, 1.0)
    w = weights_of(fitted(M, y, 0.0, init_keep_prob=keep, init_weights=initial))
    assert (w[:50] == 0).all() and (w[350:] == 0).all() and (w[50:350] > 0).all()


def test_callback_and_history_follow_the_run():
    M, y = survey()
    seen = []
    model = make()
    model.fit(M, y, l1_lambda=3e-3, verbose_freq=150, callback=lambda *look: seen.append(look), **OPTIONS)
    assert [epoch for epoch, _ in seen] == [150, 300, 450, 600] and model.epoch == 600
    actives = [metrics["active"] for _, metrics in seen]
    assert actives[0] > actives[-1] == model.get_active_weights()["count"]
    errors = M @ weights_of(model) - y
    assert seen[-1][1]["mean_error"] == pytest.approx(np.abs(errors / (y + 1)).mean(), rel=1e-3)
    assert model.history["data_loss"][-1] == pytest.approx(
        np.square((M @ weights_of(model) - y) / (y + 1)).sum(), rel=0.1
    )


def test_saves_and_is_not_resumed(tmp_path):
    M, y = survey()
    model = fitted(M, y, 1e-3)
    model.save_checkpoint(tmp_path / "run")
    loaded = make().load_checkpoint(tmp_path / "run")
    np.testing.assert_array_equal(weights_of(loaded), weights_of(model))
    for one in (model, loaded):
        with pytest.raises(ValueError, match=r"resume: expected a run to continue|saved run"):
            one.fit(M, y, resume=True, lambda_l0=0.0)


def test_same_bits_twice_and_generators_left_alone():
    M, y = survey()
    model = make()
    state = model._generator.get_state()
    model.fit(M, y, l1_lambda=1e-3, **OPTIONS)
    assert torch.equal(model._generator.get_state(), state)
    np.testing.assert_array_equal(weights_of(model), weights_of(fitted(M, y, 1e-3)))


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ({}, dict(l1_lambda=-1), ValueError, r"l1_lambda: expected a finite number of at least 0, got -1"),
        ({}, dict(l1_lambda="1"), TypeError, r"l1_lambda: expected a number, got str"),
        ({}, dict(l1_lambda=1, lambda_l0=1), ValueError, r"l1_lambda: expected it alone, got lambda_l0 too"),
        ({}, dict(l1_lambda=1, target_records=9), ValueError, r"target_records: expected it alone, got l1_lambda too"),
        ({}, dict(l1_lambda=1, resume=True), ValueError, r"l1_lambda: expected no resume"),
        ({}, dict(l1_lambda=1, checkpoint="x"), ValueError, r"l1_lambda: expected no checkpoint"),
        (dict(use_gates=False), dict(l1_lambda=1), ValueError, r"l1_lambda: expected a model with gates"),
        (dict(init_keep_prob=0.0), dict(l1_lambda=1), ValueError, r"l1_lambda: expected records with .* got none"),
    ],
)
def test_refused_by_name_before_anything_changes(model, options, error, message):
    M, y = survey()
    model = make(**model)
    before = model.log_weight.clone(), model.log_alpha.clone()
    with pytest.raises(error, match=message):
        model.fit(M, y, **options)
    assert torch.equal(before[0], model.log_weight) and torch.equal(before[1], model.log_alpha)
    with pytest.raises(ValueError, match="l1_lambda: not an option of path"):
        make().path([9], M, y, l1_lambda=1.0)
