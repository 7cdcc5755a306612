"""Whole weights: the total, the distance, the expectation, the seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l0fast.calibration import integerize


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(0, 2**32 - 1))
def test_total_is_rounded_and_each_weight_within_one(weights, seed):
    whole = integerize(weights, seed)
    assert whole.dtype == np.int64 and whole.shape == (len(weights),)
    assert whole.sum() == round(float(np.asarray(weights, dtype=float).sum()))
    assert (np.abs(whole - weights) < 1).all() if weights else True
    assert (whole[np.asarray(weights) == 0] == 0).all() if weights else True


def test_many_records():
    weights = np.random.default_rng(0).lognormal(0, 2, 1_000_000)
    whole = integerize(weights, 1)
    assert whole.sum() == round(weights.sum()) and (np.abs(whole - weights) < 1).all()


def test_expectation_is_the_weight():
    weights = np.array([0.1, 2.5, 0.9, 3.0, 1.25, 0.25])  # 8 in all
    draws = np.stack([integerize(weights, seed) for seed in range(5000)])
    # Four standard errors of a coin are 4 sqrt(1/4 / 5,000) = 0.028.
    np.testing.assert_allclose(draws.mean(axis=0), weights, atol=0.028)
    assert (draws[:, 3] == 3).all() and (draws.sum(axis=1) == 8).all()


def test_every_set_can_be_drawn():
    """Systematic sampling of one fixed order leaves pairs out; a random order does not."""
    drawn = {tuple(integerize([0.5] * 4, seed)) for seed in range(200)}
    assert len(drawn) == 6


def test_seed_decides():
    weights = np.random.default_rng(0).uniform(0, 3, 50)
    state = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(integerize(weights, 3), integerize(torch.from_numpy(weights), 3))
    assert (integerize(weights, 3) != integerize(weights, 4)).any()
    assert (integerize(weights) != integerize(weights)).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_whole_weights_are_left_alone():
    np.testing.assert_array_equal(integerize([3.0, 0, 7], 0), [3, 0, 7])
    assert integerize([], 0).shape == (0,)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, -0.5], ValueError, r"weights: expected non-negative values, got -0.5 at record 1"),
        ([1.0, np.nan], ValueError, r"weights: expected finite values, got nan at record 1"),
        ([[1.0]], ValueError, r"weights: expected shape \(1,\)"),
        (["a"], TypeError, r"weights: expected numbers, got list"),
        (5, TypeError, r"weights: expected a vector, got int"),
        ([2.0**53], ValueError, r"weights: expected a total below 2\^53, got 9.007"),
    ],
)
def test_bad_input(weights, error, message):
    with pytest.raises(error, match=message):
        integerize(weights)
