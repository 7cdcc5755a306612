"""Sampford's fixed-size samples: sizes, inclusion probabilities, and the design itself by enumeration."""

import itertools
import time

import numpy as np
import pytest

from l0fast.calibration import sampling
from l0fast.calibration.sampling import inclusion_probabilities, sampford


@pytest.mark.parametrize("k", [1, 5, 37, 90, 99, 100])
def test_probabilities_sum_to_k_and_are_proportional(k):
    sizes = np.random.default_rng(k).lognormal(0, 1.5, 100)
    chances = inclusion_probabilities(sizes, k)
    assert chances.sum() == pytest.approx(k, rel=1e-12) and (chances > 0).all() and (chances <= 1).all()
    free = chances < 1
    if free.any():
        ratio = chances[free] / sizes[free]
        np.testing.assert_allclose(ratio, ratio[0])
        assert (sizes[~free] * ratio[0] >= 1 - 1e-9).all()


def test_zero_sizes_are_never_drawn():
    sizes = [0, 1, 0, 2, 3.0]
    assert inclusion_probabilities(sizes, 2).tolist() == pytest.approx([0, 1 / 3, 0, 2 / 3, 1])
    assert sampford(sizes, 3, seed=1)[0].tolist() == [1, 3, 4]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_frequencies_are_those_of_the_design(k, monkeypatch):
    """A chi-square over all samples of 6 units; a try kept with the wrong chance shows."""
    chances = inclusion_probabilities([1, 2, 3, 1.5, 2.5, 0.7], k)
    assert (chances < 1).all()
    design = {}
    for s in itertools.combinations(range(6), k):
        odds = np.array([chances[j] / (1 - chances[j]) for j in s])
        design[s] = sum(chances[i] * np.prod(np.delete(odds, place)) for place, i in enumerate(s))
    total, draws = sum(design.values()), 12_000
    for i in range(6):  # Sampford's theorem: the design has the probabilities asked for
        assert sum(w for s, w in design.items() if i in s) / total == pytest.approx(chances[i])
    coins = sampling._tilted(chances, max(k - 1, 1))
    monkeypatch.setattr(sampling, "_tilted", lambda *_: coins)  # the same every time, and most of a draw's cost
    counts, generator = dict.fromkeys(design, 0), np.random.default_rng(k)
    for _ in range(draws):
        counts[tuple(sorted(sampling._draw(chances, k, generator).tolist()))] += 1
    expected = {s: draws * weight / total for s, weight in design.items()}
    statistic = sum((counts[s] - x) ** 2 / x for s, x in expected.items())
    freedom = len(design) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_certain_units_are_always_there():
    sizes = np.array([1, 2, 3, 1.5, 2.5, 0.7, 40, 50])
    chances = inclusion_probabilities(sizes, 5)
    assert (chances[6:] == 1).all() and (chances[:6] < 1).all()
    counts = np.zeros(8)
    for seed in range(1500):
        drawn, returned = sampford(sizes, 5, seed=seed)
        assert len(np.unique(drawn)) == 5 and {6, 7} <= set(drawn.tolist())
        counts[drawn] += 1
    np.testing.assert_array_equal(returned, chances)
    assert (np.abs(counts / 1500 - chances) < 4.5 * np.sqrt(chances * (1 - chances) / 1500) + 1e-9).all()


def test_large_samples_take_no_time():
    gates = np.random.default_rng(0).beta(0.5, 0.5, 40_000)
    began = time.process_time()
    drawn, chances = sampford(gates, 15_000, seed=0)
    assert len(np.unique(drawn)) == 15_000 and time.process_time() - began < 20
    again, _ = sampford(gates, 15_000, seed=0)
    assert (drawn == again).all() and chances.sum() == pytest.approx(15_000)


@pytest.mark.parametrize(
    ("sizes", "k", "error", "message"),
    [
        ([1, 2, 0], 3, ValueError, r"k: expected 1 to 2 \(the positive sizes\), got 3"),
        ([1, 2], 0, ValueError, r"k: expected 1 to 2"),
        ([1, 2], 1.0, TypeError, r"k: expected an int, got float"),
        ([1, -2], 1, ValueError, r"sizes: expected non-negative values, got -2.0 at unit 1"),
        ([1, np.nan], 1, ValueError, r"sizes: expected finite values, got nan at unit 1"),
        ([[1, 2]], 1, ValueError, r"sizes: expected shape"),
    ],
)
def test_bad_input(sizes, k, error, message):
    with pytest.raises(error, match=message):
        sampford(sizes, k)
