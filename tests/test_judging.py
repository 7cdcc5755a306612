"""Where the loss is, which errors no gradient reaches, and one run beside another."""

import json

import numpy as np
import pytest
import torch
from model_problem import FIT, N_TARGETS, make, survey

from l0fast.calibration import Hierarchy
from l0fast.calibration.judging import compare_targets, compare_weights, judge
from l0fast.calibration.objective import build_objective

Y = np.array([100.0, 200.0, 50.0, 0.0, 10.0, 40.0])
BEFORE = np.array([50.0, 200.0, 75.0, 1.0, 0.0, 80.0])
AFTER = np.array([90.0, 220.0, 50.0, 0.5, 0.0, 40.0])
GROUPS = np.array(["a", "a", "b", "b", "c", "c"])


def by(rows, key):
    return {row[key]: row for row in rows}


def test_losses_of_groups_add_up_to_the_models():
    M, y = survey()
    groups = np.arange(N_TARGETS) % 4
    hierarchy = Hierarchy({"us": ["n", 20], "n": list(range(8))}, totals={"us": 400.0}, level_weights={2: 3.0})
    options = {"target_groups": groups, "group_multipliers": {3: 2.0}, "hierarchy": hierarchy}
    model = make().fit(M, y, epochs=30, **FIT, **options)
    start, totals = M @ np.ones(400), model.predict(M).double().numpy()
    judged = judge(y, start, totals, loss_type="relative", **options)
    objective = build_objective(y, N_TARGETS, "relative", **options)
    for key, estimates in (("before", start), ("after", totals)):
        loss = sum(row[f"loss_{key}"] for row in judged.groups)
        loss += sum(row[f"loss_{key}"] for row in judged.levels if row["kind"] == "parents")
        assert loss == pytest.approx(float(objective.loss(torch.from_numpy(estimates))))
    shares = [row["loss_share"] for row in judged.groups]
    shares += [row["loss_share"] for row in judged.levels if row["kind"] == "parents"]
    assert sum(shares) == pytest.approx(1)
    assert sum(row["targets"] for row in judged.groups) == judged.overall["targets"] == N_TARGETS
    assert [row["mean_after"] for row in judged.groups] == sorted(
        (r["mean_after"] for r in judged.groups), reverse=True
    )


def test_groups_by_hand():
    judged = judge(Y, BEFORE, AFTER, loss_type="relative", target_groups=GROUPS, normalize_groups=False)
    row = by(judged.groups, "group")["a"]
    assert row["targets"] == 2 and row["mean_before"] == 0.25 and row["mean_after"] == pytest.approx(0.1)
    assert row["max_after"] == pytest.approx(0.1)
    assert row["loss_after"] == pytest.approx((10 / 101) ** 2 + (20 / 201) ** 2)
    assert row["past_cap_after"] is None and judged.levels == [] and judged.parents == []
    assert judge(Y, BEFORE, AFTER).groups == []
    json.dumps(judged.to_dict(), allow_nan=False)


def test_the_census_counts_what_no_gradient_reaches():
    options = {"loss_type": "capped_mape", "loss_cap": 0.5, "target_groups": GROUPS}
    judged = judge(Y, BEFORE, AFTER, **options)
    rows = by(judged.groups, "group")
    # Exactly at the cap counts, too: targets 0 and 2 before, target 3 (scale 1) after.
    assert [rows[g]["past_cap_before"] for g in "abc"] == [1, 2, 2]
    assert [rows[g]["past_cap_after"] for g in "abc"] == [0, 1, 1]
    assert (judged.overall["past_cap_before"], judged.overall["past_cap_after"]) == (5, 2)
    objective = build_objective(Y, 6, **options)
    _, slopes = objective.evaluate(torch.from_numpy(BEFORE))
    assert (slopes == 0).sum() == 6, "five past the cap, one met"
    ignored = judge(Y, BEFORE, AFTER, target_weights=[0, 1, 1, 1, 1, 1], **options)
    assert ignored.overall["past_cap_before"] == 4


def test_the_engine_too_gives_no_gradient_at_the_cap(native):
    """An estimate of 0 is an error of exactly 1, where the census says that nothing moves."""
    M = np.array([[0.0, 1.0], [1.0, 0.0]])
    options = {"lambda_l0": 0.0, "lr": 0.1, "epochs": 3, "loss_type": "capped_mape"}
    weights = []
    for hierarchy in (None, Hierarchy({"both": [0, 1]}, weight=0.0)):
        model = make_two(init_keep_prob=np.array([1.0, 0.0]))
        before = model.log_weight.detach().clone()
        model.fit(M, [5.0, 3.0], hierarchy=hierarchy, **options)
        assert model.log_weight[1] == before[1] and model.log_weight[0] != before[0]
        weights.append(model.log_weight.detach())
    torch.testing.assert_close(*weights)
    objective = build_objective([5.0, 3.0], 2, "capped_mape", hierarchy=hierarchy)
    assert objective.evaluate(torch.tensor([0.0, 1.0]))[1].tolist()[0] == 0.0


def make_two(**options):
    from l0fast.calibration import SparseCalibrationWeights

    return SparseCalibrationWeights(2, beta=0.35, seed=0, log_alpha_jitter_sd=0.0, **options)


def test_levels_and_parents():
    y, before, after = np.array([100.0, 60.0, 50.0, 9.0]), np.array([80.0, 30, 30, 9]), np.array([100.0, 66.0, 44.0, 9])
    hierarchy = Hierarchy.from_parents([None, "us", "us", None], ["us", "ca", "ny", "x"])
    judged = judge(y, before, after, loss_type="mse", hierarchy=hierarchy)
    assert [(row["level"], row["kind"], row["targets"]) for row in judged.levels] == [
        (0, "targets", 3),
        (1, "targets", 1),
        (1, "parents", 1),
    ]
    low, own, above = judged.levels
    assert low["mean_before"] == pytest.approx((0.5 + 0.4 + 0) / 3) and low["max_after"] == pytest.approx(0.12)
    assert own["mean_before"] == pytest.approx(0.2) and own["loss_after"] == 0
    assert above["mean_before"] == pytest.approx(0.4) and above["loss_before"] == 1600 and above["loss_after"] == 100
    (parent,) = judged.parents
    assert (parent["label"], parent["children"], parent["total"], parent["children_total"]) == ("us", 2, 100.0, 110.0)
    assert (parent["before"], parent["after"], parent["rel_error_after"]) == (60.0, 110.0, 0.1)


def test_bad_input_of_judge():
    with pytest.raises(ValueError, match="after: expected shape \\(6,\\)"):
        judge(Y, BEFORE, AFTER[1:])
    with pytest.raises(ValueError, match="target_groups: expected shape"):
        judge(Y, BEFORE, AFTER, target_groups=GROUPS[1:])
    with pytest.raises(ValueError, match="loss_type: expected one of"):
        judge(Y, BEFORE, AFTER, loss_type="absolute")


# -- two runs ----------------------------------------------------------------------------------------------------------


def test_records_and_weights_side_by_side():
    a = np.array([1.0, 2.0, 0.0, 4.0, 0.0, 5.0])
    b = np.array([2.0, 1.0, 3.0, 4.0, 0.0, 0.0])
    found = compare_weights(a, torch.from_numpy(b))
    assert (found["in_both"], found["only_first"], found["only_second"], found["in_neither"]) == (3, 1, 1, 1)
    assert found["records"] == 6 and found["overlap"] == pytest.approx(3 / 5)
    assert found["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    both = (a > 0) & (b > 0)
    assert found["log_correlation"] == pytest.approx(np.corrcoef(np.log(a[both]), np.log(b[both]))[0, 1])
    assert found["median_ratio"] == pytest.approx(2) and found["moved_share"] == pytest.approx(10 / 22)


def test_equal_and_disjoint_weights():
    a = np.array([1.0, 2.0, 0.0, 0.0])
    same = compare_weights(a, a)
    assert (same["overlap"], same["moved_share"], same["median_ratio"]) == (1, 0, 1)
    assert same["correlation"] == pytest.approx(1)
    apart = compare_weights(a, a[::-1].copy())
    assert (apart["overlap"], apart["moved_share"], apart["in_both"]) == (0, 1, 0) and np.isnan(apart["median_ratio"])
    nothing = compare_weights(np.zeros(3), np.zeros(3))
    assert np.isnan(nothing["overlap"]) and np.isnan(nothing["correlation"]) and nothing["in_neither"] == 3
    assert compare_weights(np.zeros(0), np.zeros(0))["records"] == 0


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        (np.ones(3), np.ones(4), "second: expected shape \\(3,\\)"),
        (np.ones((2, 2)), np.ones(4), "first: expected a vector"),
        (np.array([1, -1.0]), np.ones(2), "first: expected finite non-negative weights, got -1.0 at record 1"),
        (np.ones(2), np.array([1, np.nan]), "second: expected finite non-negative weights, got nan at record 1"),
    ],
)
def test_bad_weights(first, second, match):
    with pytest.raises(ValueError, match=match):
        compare_weights(first, second)


def test_targets_side_by_side():
    table = compare_targets(list("uvwxyz"), Y, BEFORE, AFTER, GROUPS)
    assert table["better"].tolist() == ["second", "first", "second", "second", "same", "second"]
    assert list(table) == [
        *("name", "group", "target", "first", "second", "rel_error_first", "rel_error_second", "better")
    ]
    assert table["rel_error_first"][0] == -0.5 and table["rel_error_second"][1] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="name: expected 6 entries"):
        compare_targets(list("uvwxy"), Y, BEFORE, AFTER)
