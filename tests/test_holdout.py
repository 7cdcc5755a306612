"""Held-out targets have no influence, and the folds' fits are those of the problem without their rows."""

import numpy as np
import pytest
import torch
from model_problem import N_TARGETS, make, survey

from l0fast.calibration import Hierarchy, Holdout, SparseCalibrationWeights
from l0fast.calibration.holdout import Rotation, fold_codes

GROUPS = np.arange(N_TARGETS) % 7
FIT = {"lambda_l0": 1e-4, "lr": 0.1, "loss_type": "relative", "epochs": 25}


@pytest.mark.parametrize("hierarchy", [None, {"a": [0, 1, 2, 3], "b": list(range(4, 20)), "all": ["a", "b"]}])
@pytest.mark.parametrize("by", ["targets", "groups"])
@pytest.mark.parametrize("loss", ["relative", "capped_mape"])
def test_values_of_held_out_targets_do_not_matter(loss, by, hierarchy):
    M, y = survey()
    holdout = Holdout(3, by, seed=1)
    options = {
        **FIT,
        "epochs": 6,
        "loss_type": loss,
        "target_groups": GROUPS,
        "holdout": holdout,
        "hierarchy": hierarchy,
    }
    first = make(log_weight_jitter_sd=0.05).fit(M, y, **options).held_out
    for fold in range(3):
        changed = np.where(first.fold == fold, 7 * y + 1, y)
        again = make(log_weight_jitter_sd=0.05).fit(M, changed, **options).held_out
        np.testing.assert_array_equal(again.fold, first.fold)
        np.testing.assert_array_equal(again.estimates[fold], first.estimates[fold])
        others = [k for k in range(3) if k != fold]
        assert (again.estimates[others] != first.estimates[others]).any(axis=1).all(), "the others have seen them"
        assert (again.fitted != first.fitted).any()


@pytest.mark.parametrize(
    ("loss", "extra"),
    [
        ("relative", {}),
        ("relative", {"target_groups": GROUPS, "group_multipliers": {2: 3.0}}),
        ("relative", {"target_groups": GROUPS, "normalize_groups": False, "target_weights": np.linspace(0.5, 2, 30)}),
        ("capped_mape", {"target_groups": GROUPS, "target_weights": np.linspace(0.5, 2, 30)}),
    ],
)
def test_a_folds_fit_is_that_without_its_rows(loss, extra):
    M, y = survey()
    options = {**FIT, "loss_type": loss, **extra}
    result = make(log_weight_jitter_sd=0.05).fit(M, y, holdout=4, **options).held_out
    there = result.fold != 2
    per_target = {k: extra[k][there] for k in ("target_groups", "target_weights") if k in extra}
    alone = make(log_weight_jitter_sd=0.05).fit(M[there], y[there], **(options | per_target))
    weights = alone.get_weights(deterministic=True).detach().double().numpy()
    np.testing.assert_allclose(result.estimates[2], M @ weights, rtol=1e-3)
    assert result.records[2] == pytest.approx((weights > 0).sum(), abs=1)


def test_the_fit_itself_is_the_fit_without_holdout():
    M, y = survey()
    with_folds = make(log_weight_jitter_sd=0.05).fit(M, y, holdout=Holdout(3), **FIT)
    plain = make(log_weight_jitter_sd=0.05).fit(M, y, **FIT)
    assert torch.equal(with_folds.log_weight, plain.log_weight) and torch.equal(with_folds.log_alpha, plain.log_alpha)
    assert torch.equal(with_folds.get_weights(), plain.get_weights()), "the same generator state afterwards"
    np.testing.assert_array_equal(with_folds.held_out.fitted, plain.predict(M).double().numpy())
    np.testing.assert_allclose(with_folds.held_out.initial, M @ np.ones(400), rtol=1e-5)
    assert plain.held_out is None


def test_models_without_a_seed_start_every_fold_with_the_same_noise():
    """A fold in which nothing that counts is left out equals the fit; the generator goes on as after a plain fit."""
    M, y = survey()
    weights = np.ones(N_TARGETS)
    weights[:2] = 1e-30  # they count as targets, and not at all in the loss
    options = {**FIT, "target_weights": weights, "target_groups": np.r_[0, 0, np.ones(28)], "normalize_groups": False}
    torch.manual_seed(4)
    model = SparseCalibrationWeights(400, beta=0.35, log_weight_jitter_sd=0.05)
    result = model.fit(M, y, holdout=Holdout(2, "groups"), **options).held_out
    draw = torch.rand(3)
    fold = int(result.fold[0])
    np.testing.assert_array_equal(result.estimates[fold], result.fitted)
    torch.manual_seed(4)
    SparseCalibrationWeights(400, beta=0.35, log_weight_jitter_sd=0.05).fit(M, y, **options)
    assert torch.equal(draw, torch.rand(3))


def test_folds_of_targets_spread_each_group_and_are_of_one_size():
    codes = fold_codes(Holdout(5, seed=3), 103, np.arange(103) % 4)
    assert np.ptp(np.bincount(codes)) <= 1 and (np.sort(np.unique(codes)) == np.arange(5)).all()
    for group in range(4):
        assert np.ptp(np.bincount(codes[np.arange(103) % 4 == group], minlength=5)) <= 1
    assert (codes == fold_codes(Holdout(5, seed=3), 103, np.arange(103) % 4)).all()
    assert (codes != fold_codes(Holdout(5, seed=4), 103, np.arange(103) % 4)).any()


def test_folds_of_groups_keep_groups_together():
    groups = np.repeat(["a", "b", "c", "d", "e"], [50, 10, 12, 11, 9])
    codes = fold_codes(Holdout(2, "groups"), 92, groups)
    assert all(len(set(codes[groups == g])) == 1 for g in "abcde")
    assert np.bincount(codes).tolist() in ([50, 42], [42, 50])


def test_targets_of_weight_0_are_in_no_fold():
    M, y = survey()
    weights = np.ones(N_TARGETS)
    weights[[3, 9]] = 0
    result = make().fit(M, y, holdout=2, target_weights=weights, **FIT).held_out
    assert (result.fold[[3, 9]] == -1).all() and np.isnan(result.held_out[[3, 9]]).all()
    assert result.table()[-1]["targets"] == 28 and np.isfinite(result.table()[-1]["held_out_mean"])


def test_the_tables_say_what_the_totals_say():
    M, y = survey()
    result = make().fit(M, y, holdout=Holdout(3, "groups"), target_groups=GROUPS, **{**FIT, "epochs": 300}).held_out
    rows, everything = result.table()[:-1], result.table()[-1]
    held = np.abs(result.held_out / y - 1)
    for row in rows:
        out = result.fold == row["fold"]
        assert row["targets"] == out.sum()
        assert row["held_out_mean"] == pytest.approx(held[out].mean())
        assert row["own_mean"] == pytest.approx(np.abs(result.estimates[row["fold"]] / y - 1)[~out].mean())
        assert row["initial_median"] == pytest.approx(np.median(np.abs(result.initial / y - 1)[out]))
        assert row["fit_mean"] == pytest.approx(np.abs(result.fitted / y - 1)[out].mean())
        assert row["better_share"] == (held < np.abs(result.initial / y - 1))[out].mean()
    assert everything["targets"] == N_TARGETS and everything["held_out_mean"] == pytest.approx(held.mean())
    assert everything["own_mean"] < everything["held_out_mean"], "these targets cannot be guessed from others"
    groups = result.group_table()
    assert [row["held_out_mean"] for row in groups] == sorted((r["held_out_mean"] for r in groups), reverse=True)
    assert {row["group"]: row["targets"] for row in groups} == {str(g): int((GROUPS == g).sum()) for g in range(7)}
    text = str(result).splitlines()
    assert len(text) == 5 and text[0].split()[0] == "fold" and text[-1].split()[:2] == ["all", "30"]
    assert result.to_dict()["by"] == "groups" and len(result.to_dict()["table"]) == 4


@pytest.mark.filterwarnings("ignore:target_records")
def test_budgets_and_refits_are_part_of_a_folds_fit():
    M, y = survey()
    options = {"target_records": 90, "exact": True, "refit": True, "epochs": 20, "lr": 0.1}
    result = make().fit(M, y, holdout=2, **options).held_out
    assert result.records.tolist() == [90, 90] and result.fitted_records == 90


def test_callbacks_and_checkpoints_are_of_the_fit_alone(tmp_path):
    M, y = survey()
    seen, path = [], tmp_path / "run.safetensors"
    hooks = {"callback": lambda epoch, _: seen.append(epoch), "verbose_freq": 25, "checkpoint": path}
    model = make().fit(M, y, holdout=3, **hooks, **FIT)
    assert seen == [25]
    assert torch.equal(make().load_checkpoint(path).log_alpha, model.log_alpha)


def test_an_interrupted_fold_says_so_and_leaves_the_fit(monkeypatch):
    M, y = survey()
    model, fitted = make(), make().fit(M, y, **FIT)
    original, calls = SparseCalibrationWeights.fit, []

    def fit(self, *arguments, **options):
        if options.get("holdout") is None:
            calls.append(self)
            if len(calls) == 3:
                raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(SparseCalibrationWeights, "fit", fit)
    with pytest.raises(KeyboardInterrupt, match="holdout: fold 2 of 3: stopped; the fit of all targets is done"):
        model.fit(M, y, holdout=3, **FIT)
    assert calls[0] is model and torch.equal(model.log_alpha, fitted.log_alpha)


@pytest.mark.parametrize(
    ("holdout", "options", "error", "match"),
    [
        (1, {}, ValueError, "holdout: folds: expected at least 2, got 1"),
        (2.5, {}, TypeError, "holdout: folds: expected an int, got float"),
        (True, {}, TypeError, "holdout: folds: expected an int, got bool"),
        (31, {}, ValueError, "holdout: folds: expected at most the 30 targets, got 31"),
        (dict(by="states"), {}, ValueError, "holdout: by: expected one of targets, groups, got 'states'"),
        (dict(seed=-1), {}, ValueError, "holdout: seed: expected at least 0"),
        (dict(by="groups"), {}, ValueError, "holdout: by: expected target_groups for folds of groups, got none"),
        (dict(folds=8, by="groups"), {"target_groups": GROUPS}, ValueError, "expected at most the 7 groups, got 8"),
        (2, {"resume": True}, ValueError, "holdout: expected resume=False, got True"),
        (2, {"target_groups": GROUPS[1:]}, ValueError, "target_groups: expected shape"),
    ],
)
def test_bad_input_by_name_and_before_anything_changes(holdout, options, error, match):
    M, y = survey()
    model = make()
    before = model.log_alpha.detach().clone()
    with pytest.raises(error, match=match):
        given = Holdout(**holdout) if isinstance(holdout, dict) else holdout
        model.fit(M, y, holdout=given, **FIT, **options)
    assert torch.equal(model.log_alpha, before) and model.epoch == 0


def test_a_path_takes_no_holdout():
    M, y = survey()
    with pytest.raises(ValueError, match="holdout: not an option of path"):
        make().path([50], M, y, 5, holdout=3)


def test_published_totals_stay_when_their_children_are_left_out():
    _, y = survey()
    given = Hierarchy({"a": [0, 1, 2, 3]}, totals={"a": 50.0})
    left = Rotation(Holdout(3), y, N_TARGETS, hierarchy=given).left(0)
    assert left.hierarchy.weights == {}
    derived = Rotation(Holdout(3), y, N_TARGETS, hierarchy={"a": list(range(30))}).left(0)
    assert derived.hierarchy.weights == {"a": 0.0}
