"""Figures of targets and weights, against their formulas and hand-made cases."""

import math

import numpy as np
import pytest

from l0fast.calibration.diagnostics import (
    group_table,
    quality,
    relative_errors,
    target_table,
    weight_statistics,
)


def test_relative_errors_keep_the_sign_and_survive_a_target_of_zero():
    errors = relative_errors([110.0, -90.0, 3.0, 0.0], [100.0, -100.0, 0.0, 0.0])
    np.testing.assert_allclose(errors, [0.1, 0.1, 3.0, 0.0])


def test_quality():
    figures = quality([101.0, 104.0, 109.0, 130.0], [100.0] * 4)
    assert figures["mean_error"] == pytest.approx(0.11)
    assert figures["median_error"] == pytest.approx(0.065)
    assert figures["max_error"] == pytest.approx(0.3)
    assert [figures[f"share_within_{p}"] for p in (1, 5, 10)] == [0.25, 0.5, 0.75]


def test_quality_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"estimates: expected shape \(2,\), got shape \(3,\)"):
        quality([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="at least one target"):
        quality([], [])


def test_target_table_has_its_columns_in_order():
    table = target_table(["a", "b"], [10.0, 20.0], [12.0, 20.0], [11.0, 22.0], groups=["x", "y"])
    assert list(table) == [
        *("name", "group", "target", "before", "after", "rel_error_before", "rel_error_after", "improved")
    ]
    assert table["improved"].tolist() == [True, False]
    assert "group" not in target_table(["a"], [1.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="name: expected 2 entries, one for each target, got 1"):
        target_table(["a"], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0])


def test_group_table_is_worst_first():
    table = target_table(list("abc"), [10.0] * 3, [20.0] * 3, [10.0, 11.0, 12.0], groups=["x", "y", "y"])
    rows = group_table(table)
    assert [row["group"] for row in rows] == ["y", "x"]
    assert rows[0]["mean_after"] == pytest.approx(0.15) and rows[0]["max_after"] == pytest.approx(0.2)
    assert rows[0]["targets"] == 2 and rows[0]["mean_before"] == pytest.approx(1.0)


def test_equal_weights_lose_nothing():
    figures = weight_statistics([5.0] * 200 + [0.0] * 100)
    assert figures["records"] == 300 and figures["count"] == 200 and figures["total"] == 1000
    assert figures["ess"] == pytest.approx(200) and figures["design_effect"] == pytest.approx(1)
    assert figures["largest_ratio"] == 1 and figures["top_1_percent_share"] == pytest.approx(0.01)


def test_weight_statistics_follow_kish():
    w = np.random.default_rng(0).lognormal(size=1001)
    figures = weight_statistics(w, initial=np.full(1001, 2.0))
    assert figures["ess"] == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert figures["design_effect"] == pytest.approx(1 + w.var() / w.mean() ** 2)
    assert figures["largest_ratio"] == pytest.approx(w.max() / np.median(w))
    assert figures["top_1_percent_share"] == pytest.approx(np.sort(w)[-11:].sum() / w.sum())
    assert figures["largest_change"] == pytest.approx(w.max() / 2)


def test_squares_of_huge_weights_do_not_overflow():
    assert weight_statistics([1e200, 1e200])["ess"] == pytest.approx(2)


def test_no_weights_left():
    figures = weight_statistics([0.0, 0.0], initial=[1.0, 1.0])
    assert figures["count"] == 0 and figures["ess"] == 0
    assert all(math.isnan(figures[key]) for key in ("design_effect", "largest_ratio", "max", "largest_change"))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_weight_statistics_refuse_impossible_weights(value):
    with pytest.raises(ValueError, match=r"weights: expected finite non-negative values, got .* at record 1"):
        weight_statistics([1.0, value])
