"""Parents of targets: the loss of redundant rows without the rows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_problem import FIT, N_TARGETS, make, survey
from scipy import sparse as sp

from l0fast.calibration import Hierarchy, SparseCalibrationWeights
from l0fast.calibration.hierarchy import Family
from l0fast.calibration.objective import build_objective

STATES = {"north": list(range(0, 10)), "south": list(range(10, 18))}
NATION = {"us": ["north", "south", 25], **STATES}
"""An upper parent before its own children; targets 18 to 24 and 26 to 29 have no parent."""
LOSSES = [
    ("mse", {}),
    ("relative", {}),
    ("relative_epsilon", {"target_tolerances": 0.01}),
    ("capped_mape", {"loss_cap": 0.5}),
]


def rows_of(children: dict, order: list[str]) -> np.ndarray:
    """The matrix [parents, targets] of 0 and 1 that the aggregates stand for."""

    def leaves(label):
        return [j for c in children[label] for j in (leaves(c) if isinstance(c, str) else [c])]

    A = np.zeros((len(order), N_TARGETS))
    for k, label in enumerate(order):
        A[k, leaves(label)] = 1
    return A


def appended(M, y, order=("north", "south", "us"), children=NATION):
    A = rows_of(children, list(order))
    return sp.csr_array(np.vstack([M.toarray(), A @ M.toarray()])), np.concatenate([y, A @ y])


def tolerances(extra, count):
    """Rows of targets have the tolerance, rows of parents have none."""
    if "target_tolerances" not in extra:
        return extra
    return {"target_tolerances": np.r_[np.full(count, extra["target_tolerances"]), 0.0, 0.0, 0.0]}


@pytest.mark.parametrize(("loss", "extra"), LOSSES)
def test_loss_and_slopes_are_those_of_appended_rows(loss, extra):
    M, y = survey()
    objective = build_objective(y, N_TARGETS, loss, hierarchy=NATION, **extra)
    _, longer = appended(M, y)
    plain = build_objective(longer, len(longer), loss, **tolerances(extra, N_TARGETS))
    totals = torch.from_numpy(y * np.random.default_rng(0).uniform(0.8, 1.3, N_TARGETS))
    A = torch.from_numpy(rows_of(NATION, ["north", "south", "us"]))
    value, slopes = objective.evaluate(totals)
    same, long_slopes = plain.evaluate(torch.cat([totals, A @ totals]))
    # 'capped_mape' is a mean over the targets' weights: three rows more divide it by more.
    factor = len(longer) / N_TARGETS if loss == "capped_mape" else 1.0
    torch.testing.assert_close(value, same * factor, rtol=1e-12, atol=0)
    expected = (long_slopes[:N_TARGETS] + A.T @ long_slopes[N_TARGETS:]) * factor
    torch.testing.assert_close(slopes, expected, rtol=1e-11, atol=1e-14)


def test_slopes_against_finite_differences():
    _, y = survey()
    objective = build_objective(y, N_TARGETS, "relative", hierarchy=Hierarchy(NATION, weight=3.0))
    totals = torch.from_numpy(y * np.random.default_rng(0).uniform(0.8, 1.3, N_TARGETS))
    _, slopes = objective.evaluate(totals)
    for j in (3, 17, 20, 25):
        step = torch.zeros(N_TARGETS, dtype=torch.float64)
        step[j] = 1e-4 * y[j]
        difference = (objective.evaluate(totals + step)[0] - objective.evaluate(totals - step)[0]) / (2 * step[j])
        torch.testing.assert_close(slopes[j], difference, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("loss", "extra"), [LOSSES[0], LOSSES[1], LOSSES[2]])
def test_fit_equals_one_with_redundant_rows(loss, extra):
    M, y = survey()
    longer_M, longer_y = appended(M, y)
    options = {**FIT, "loss_type": loss, "epochs": 60}
    fitted = make().fit(M, y, hierarchy=NATION, **options, **extra)
    redundant = make().fit(longer_M, longer_y, **options, **tolerances(extra, N_TARGETS))
    without = make().fit(M, y, **options, **extra)
    weights = [model.get_weights(deterministic=True).detach().numpy() for model in (fitted, redundant, without)]
    np.testing.assert_allclose(weights[0], weights[1], rtol=2e-3, atol=1e-5)
    assert np.abs(weights[0] - weights[2]).max() > 0.02, "the parents must matter"
    np.testing.assert_allclose(fitted.history["data_loss"], redundant.history["data_loss"], rtol=1e-3)


def test_groups_take_each_level_for_a_group():
    M, y = survey()
    groups = np.arange(N_TARGETS) % 3
    options = {**FIT, "epochs": 40}
    fitted = make().fit(M, y, hierarchy=NATION, target_groups=groups, group_multipliers={1: 2.0}, **options)
    longer_M, longer_y = appended(M, y)
    labels = np.r_[groups, 11, 11, 12]
    redundant = make().fit(longer_M, longer_y, target_groups=labels, group_multipliers={1: 2.0}, **options)
    np.testing.assert_allclose(fitted.history["data_loss"], redundant.history["data_loss"], rtol=1e-3)


def test_the_order_is_the_same_in_every_process():
    """Texts hash differently in each: a checkpoint of one would be refused by the next."""
    children = {"us": ["n", "s", "w", 0], "n": ["x", "y"], "s": [1], "w": [2], "x": [3], "y": [4]}
    code = "from l0fast.calibration.objective import build_objective\n"
    code += f"print(build_objective([1.0, 2, 3, 4, 5], 5, hierarchy={children!r}).sha256())"
    root = Path(__file__).parent.parent
    said = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        said.add(done.stdout)
    assert len(said) == 1


def test_weights_multiply():
    _, y = survey()
    hierarchy = Hierarchy(NATION, weight=2.0, level_weights={2: 5.0}, weights={"north": 0.0, "us": 3.0})
    aggregates = build_objective(y, N_TARGETS, "mse", hierarchy=hierarchy).aggregates
    assert dict(zip(Family.of(hierarchy, N_TARGETS).labels, aggregates.omega.tolist(), strict=True)) == {
        "north": 0.0,
        "south": 2.0,
        "us": 30.0,
    }


def test_a_column_means_the_same_as_a_mapping():
    _, y = survey()
    column = np.full(N_TARGETS, -1)
    column[:10], column[10:18] = 4, 7
    labels = ["4" if c == 4 else "7" if c == 7 else None for c in column]
    given = [column, torch.from_numpy(column), labels, {"4": STATES["north"], "7": STATES["south"]}]
    hashes = {build_objective(y, N_TARGETS, hierarchy=h).sha256()["hierarchy"] for h in given}
    assert len(hashes) == 1 and None not in hashes
    assert build_objective(y, N_TARGETS).sha256()["hierarchy"] is None


def test_a_parent_that_is_a_target_has_its_value_and_its_level():
    y = np.array([100.0, 40.0, 50.0, 10.0, 20.0])
    names = ["us", "ca", "ny", "ca/1", "ca/2"]
    hierarchy = Hierarchy.from_parents([None, "us", "us", "ca", "ca"], names)
    family = Family.of(hierarchy, 5)
    assert family.labels == ["ca", "us"] and family.levels.tolist() == [1, 2]
    assert family.target_levels.tolist() == [2, 1, 0, 0, 0]
    assert family.totals(y)[0].tolist() == [40.0, 100.0] and family.totals(y)[1].tolist() == [30.0, 90.0]
    assert [leaves.tolist() for leaves in family.leaves] == [[3, 4], [1, 2]], "rows stand for themselves"
    worst, other = hierarchy.consistency(y)
    assert (worst["label"], worst["level"], worst["children"], worst["rel_difference"]) == ("ca", 1, 2, -0.25)
    assert (other["total"], other["children_total"]) == (100.0, 90.0)


def test_of_adds_a_level_above_parents_that_are_no_targets():
    hierarchy = Hierarchy.from_parents(["n", "n", "s", None], of={"n": "us", "s": "us"}, totals={"n": 7.0})
    family = Family.of(hierarchy, 4)
    totals = dict(zip(family.labels, family.totals(np.array([1.0, 2.0, 4.0, 9.0]))[0].tolist(), strict=True))
    assert totals == {"n": 7.0, "s": 4.0, "us": 11.0}, "what is published counts upwards too"


def test_totals_that_contradict_the_children_are_a_compromise():
    """The published total pulls the children up, the further the more it counts."""
    M, y = survey()
    sums = []
    for weight in (0.0, 1.0, 100.0):
        hierarchy = Hierarchy({"north": STATES["north"]}, totals={"north": 1.2 * y[:10].sum()}, weight=weight)
        options = {"epochs": 60, "lr": 0.05, "lambda_l0": 0.0, "loss_type": "relative"}
        model = make(use_gates=False).fit(M, y, hierarchy=hierarchy, **options)
        sums.append(float(model.predict(M)[:10].sum() / y[:10].sum()))
    assert abs(sums[0] - 1) < 0.01 and sums[0] + 0.01 < sums[1] < 1.05 and 1.15 < sums[2] < 1.2


def test_chunks_and_checkpoints_give_one_run(tmp_path):
    M, y = survey()
    whole = make().fit(M, y, hierarchy=NATION, epochs=30, **FIT)
    path = tmp_path / "run.safetensors"
    make().fit(M, y, hierarchy=NATION, epochs=12, checkpoint=path, **FIT)
    resumed = make().load_checkpoint(path).fit(M, y, hierarchy=NATION, epochs=18, resume=True, **FIT)
    assert torch.equal(resumed.log_weight, whole.log_weight) and torch.equal(resumed.log_alpha, whole.log_alpha)
    for other in (None, STATES, Hierarchy(NATION, weight=2.0)):
        with pytest.raises(ValueError, match="hierarchy is not that of the saved run"):
            make().load_checkpoint(path).fit(M, y, hierarchy=other, epochs=1, resume=True, **FIT)


def test_a_checkpoint_without_parents_is_not_continued_with_them(tmp_path):
    M, y = survey()
    path = tmp_path / "run.safetensors"
    make().fit(M, y, epochs=3, checkpoint=path, **FIT)
    with pytest.raises(ValueError, match="hierarchy is not that of the saved run"):
        make().load_checkpoint(path).fit(M, y, hierarchy=NATION, epochs=1, resume=True, **FIT)


@pytest.mark.filterwarnings("ignore:target_records")
def test_budget_refit_and_path_know_the_parents():
    M, y = survey()
    options = {"lr": 0.1, "loss_type": "relative"}
    hierarchy = Hierarchy({"north": STATES["north"]}, totals={"north": 1.2 * y[:10].sum()}, weight=100.0)
    both = make().fit(M, y, hierarchy=hierarchy, target_records=80, exact=True, refit=True, epochs=60, **options)
    assert both.get_active_weights()["count"] == 80
    assert 1.15 < float(both.predict(M)[:10].sum() / y[:10].sum()) < 1.2
    (point,) = make().path([80], M, y, 60, hierarchy=hierarchy, exact=True, refit=True, **options)
    objective = build_objective(y, N_TARGETS, "relative", hierarchy=hierarchy)
    assert point.loss == pytest.approx(float(objective.loss(both.predict(M).double())), rel=1e-6)


def test_models_with_methods_of_their_own():
    """They run through their methods, with the noise of other draws: the loss starts where its own totals are."""
    M, y = survey()

    class Own(SparseCalibrationWeights):
        def _sample_gates(self):
            return torch.ones_like(self.log_alpha)

    model = Own(400, beta=0.35, seed=5).fit(M, y, hierarchy=NATION, epochs=3, **FIT)
    objective = build_objective(y, N_TARGETS, "relative", hierarchy=NATION)
    start = float(objective.loss(torch.from_numpy(M @ np.ones(400))))
    np.testing.assert_allclose(model.history["data_loss"][0], start, rtol=1e-5)


def test_left_out_targets_take_the_totals_made_of_them():
    y = np.arange(1.0, 7.0)
    hierarchy = Hierarchy({"a": [0, 1], "b": [2, 3], "c": [4], "us": ["a", "b"]}, totals={"b": 9.0}, rows={"c": 5})
    left_out = np.zeros(6, dtype=bool)
    left_out[[0, 2, 5]] = True
    assert hierarchy.without(left_out).weights == {"a": 0.0, "c": 0.0, "us": 0.0}
    omega = build_objective(y, 6, hierarchy=hierarchy.without(left_out)).aggregates.omega
    assert float(omega.sum()) == 1.0


@pytest.mark.parametrize(
    ("hierarchy", "error", "match"),
    [
        ({}, TypeError, "hierarchy: expected children by parent"),
        (5, TypeError, "hierarchy: expected a Hierarchy, children by parent or a parent for each target, got int"),
        ({"us": []}, ValueError, "hierarchy: 'us': expected a list of children"),
        ({"us": [0, 30]}, ValueError, "hierarchy: 'us': expected indices of targets below 30 .* got 30"),
        ({"us": [0, "north"]}, ValueError, "hierarchy: 'us': expected indices .* got 'north'"),
        ({"us": [0, True]}, ValueError, "got True"),
        ({7: [0]}, TypeError, "hierarchy: expected a text as a parent's label, got 7"),
        ({"a": ["b"], "b": ["a"]}, ValueError, "hierarchy: .* is below .*, a circle"),
        ({"us": [0, 1, 0]}, ValueError, "hierarchy: target 0 is below 'us' more than once"),
        ({"us": [0, "a"], "a": [0]}, ValueError, "hierarchy: target 0 is below 'us' more than once"),
        (
            Hierarchy({"us": [0]}, totals={"them": 1.0}),
            ValueError,
            "hierarchy: totals of 'them', which has no children",
        ),
        (Hierarchy({"us": [0]}, totals={"us": np.nan}), ValueError, "hierarchy: total of 'us': expected a finite"),
        (Hierarchy({"us": [0]}, rows={"us": 30}), ValueError, "hierarchy: rows of 'us': expected an index below 30"),
        (Hierarchy({"us": [0, 3]}, rows={"us": 3}), ValueError, "a circle"),
        (Hierarchy({"us": [0]}, weight=-1), ValueError, "hierarchy: weight: expected a finite non-negative"),
        (Hierarchy({"us": [0]}, weights={"us": np.inf}), ValueError, "hierarchy: weights of 'us': expected a finite"),
        (Hierarchy({"us": [0]}, level_weights={2: 1}), ValueError, "level_weights: expected levels 1 to 1, got 2"),
        (Hierarchy({"us": [0]}, totals={"us": -1.0}), ValueError, "divides by total \\+ 1, which is 0 for 'us'"),
        ([None] * 30, ValueError, "hierarchy: expected at least one target with a parent, got none"),
        (["us"] * 31, ValueError, "hierarchy: expected 30 parents, one for each target, got 31"),
    ],
)
def test_bad_input_by_name_and_before_anything_changes(hierarchy, error, match):
    M, y = survey()
    model = make()
    before = model.log_weight.detach().clone()
    with pytest.raises(error, match=match):
        model.fit(M, y, hierarchy=hierarchy, epochs=5, **FIT)
    assert torch.equal(model.log_weight, before) and model.epoch == 0


def test_ambiguous_names():
    with pytest.raises(ValueError, match="parent 'us' is the name of targets 0 and 1"):
        Hierarchy.from_parents([None, None, "us"], ["us", "us", "a"])
    with pytest.raises(ValueError, match="'us' is a target; its parent belongs beside the target"):
        Hierarchy.from_parents([None, "us"], ["us", "a"], of={"us": "world"})
