"""Options of a fit that were made apart, together."""

import numpy as np
import pytest
from model_problem import N_RECORDS, make, survey

from l0fast.calibration import Hierarchy

OPTIONS = {"loss_type": "relative", "lr": 0.1, "lambda_l0": 1e-3, "lambda_l2": 1e-6}
LIMITS = {"max_weight_ratio": 5, "mass": "conserve", "anchor": "initial"}


def parents(n_targets: int, **options) -> Hierarchy:
    """Two regions of the targets, and the whole."""
    half = n_targets // 2
    children = {"a": list(range(half)), "b": list(range(half, n_targets)), "all": ["a", "b"]}
    return Hierarchy(children, **options)


def weights_of(model) -> np.ndarray:
    return model.get_weights(deterministic=True).detach().double().numpy()


def assert_held(model) -> None:
    weights, initial = weights_of(model), model.initial_weights
    assert abs(weights.sum() / initial.sum() - 1) < 1e-9
    assert (weights <= 5 * initial).all()


@pytest.mark.parametrize("more", [{"schedule": "anneal"}, {"tol": 1e-3}, {"target_records": 150, "exact": True}])
def test_limits_hold_under_a_hierarchy_however_the_run_is_steered(more):
    M, y = survey()
    options = {**OPTIONS, **LIMITS, **more, "hierarchy": parents(len(y)), "epochs": 200}
    if "target_records" in more:
        del options["lambda_l0"]
    model = make().fit(M, y, refit=True, **options)
    assert_held(model)
    if "target_records" in more:
        assert model.get_active_weights()["count"] == 150
    errors = np.abs(M @ weights_of(model) / y - 1)
    free = np.abs(M @ weights_of(make().fit(M, y, refit=True, **{**options, "hierarchy": None})) / y - 1)
    assert errors.mean() < 2 * free.mean() + 0.01, "parents agree with their children here: they cost little"


def test_a_hierarchy_without_weight_is_none():
    """The step-by-step epochs know bounds, mass, anchor and prices as the whole ones do."""
    M, y = survey()
    options = {**OPTIONS, **LIMITS, "epochs": 60}
    plain = make().fit(M, y, **options)
    stepped = make().fit(M, y, **options, hierarchy=parents(len(y), weight=0.0))
    np.testing.assert_allclose(weights_of(stepped), weights_of(plain), rtol=2e-3)
    np.testing.assert_allclose(stepped.history["data_loss"], plain.history["data_loss"], rtol=1e-3)


@pytest.mark.parametrize("more", [{}, {"schedule": "anneal"}])
def test_pieces_are_one_run(tmp_path, more):
    """Through a file, with all that a run may carry."""
    M, y = survey()
    options = {**OPTIONS, **LIMITS, **more, "hierarchy": parents(len(y))}
    whole = make().fit(M, y, epochs=70, **options)
    pieces = make()
    if more:  # an annealed run has to know its end: only an interruption may split it

        def interrupt(epoch, metrics):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pieces.fit(M, y, epochs=70, verbose_freq=30, callback=interrupt, **options)
        pieces.fit(M, y, epochs=40, resume=True, **options)
    else:
        pieces.fit(M, y, epochs=30, **options).save_checkpoint(tmp_path / "run.safetensors")
        pieces = make().load_checkpoint(tmp_path / "run.safetensors")
        pieces.fit(M, y, epochs=40, resume=True, **options)
    np.testing.assert_array_equal(weights_of(pieces), weights_of(whole))


def test_folds_obey_the_limits():
    M, y = survey()
    options = {**OPTIONS, **LIMITS, "epochs": 60, "hierarchy": parents(len(y))}
    model = make().fit(M, y, holdout=3, **options)
    assert_held(model)
    np.testing.assert_array_equal(weights_of(model), weights_of(make().fit(M, y, **options)))
    rows = model.held_out.table()
    assert len(rows) == 4 and all(np.isfinite(row["held_out_mean"]) for row in rows)


def test_a_frontier_obeys_the_limits():
    M, y = survey()
    model = make()
    points = model.path([N_RECORDS // 2, 100], M, y, epochs=150, exact=True, refit=True, loss_type="relative", **LIMITS)
    for point, count in zip(points, (N_RECORDS // 2, 100), strict=True):
        assert point.records == count == (point.weights > 0).sum()
        assert abs(point.weights.astype(float).sum() / model.initial_weights.sum() - 1) < 1e-9
