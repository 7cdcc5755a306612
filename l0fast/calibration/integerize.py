"""Whole weights, for a next step that wants so many copies of each record."""

import numpy as np

from .objective import finite_vector
from .sampling import inclusion_probabilities


def integerize(weights, seed: int | None = None) -> np.ndarray:
    """Truncates, replicates, samples: each weight becomes the whole number below or above it, and the total stays.

    ``w_i = floor(w_i) + f_i``: of the records with a fraction, ``r = round(sum w) - sum floor(w)`` get one more, drawn
    without replacement, each with probability ``f_i r / sum f`` (at most 1): systematic sampling of a random order. So
    ``E[result_i]`` is w_i up to what rounding the total to a whole number takes, and exactly w_i where the total is
    whole.

    Args:
        weights: [n], at least 0: numbers, a NumPy array or a tensor on any device. A weight of 0 stays 0.
        seed: of numpy.random.default_rng, the same seed gives the same result; None for a fresh one.

    Returns:
        int64 [n], each less than 1 away from its weight, whose sum is the total rounded half to even.

    Raises:
        TypeError, ValueError: weights that are no vector, negative, not finite, or with a total of 2^53 or more, whose
            fractions float64 no longer has.

    Source: Lovelace, Ballas 2013, "Truncate, replicate, sample": a method for creating integer weights for spatial
    microsimulation (Computers, Environment and Urban Systems 41, 1-11).
    """
    try:
        count = len(weights)
    except TypeError:
        raise TypeError(f"weights: expected a vector, got {type(weights).__name__}") from None
    weights = finite_vector("weights", weights, count, item="record")
    if (bad := np.flatnonzero(weights < 0)).size:
        raise ValueError(f"weights: expected non-negative values, got {weights[bad[0]]} at record {bad[0]}")
    if not weights.sum() < 2**53:
        raise ValueError(f"weights: expected a total below 2^53, got {weights.sum():.10g}")
    floors = np.floor(weights)
    fractions, whole = weights - floors, floors.astype(np.int64)
    more = _rounded_total(weights) - int(whole.sum())
    if more:
        whole[_systematic(fractions, more, np.random.default_rng(seed))] += 1
    return whole


def _rounded_total(weights: np.ndarray) -> int:
    return round(float(weights.sum()))


def _systematic(sizes: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """k indices, each with its inclusion probability: every first unit beyond u, u + 1, ... of the sum of chances."""
    chances = inclusion_probabilities(sizes, k)
    order = generator.permutation(np.flatnonzero(chances))
    marks = np.minimum(np.cumsum(chances[order]), k)
    marks[-1] = k  # whatever rounding has made of it
    passed = np.floor(marks + generator.random()).astype(np.int64)
    return order[np.diff(passed, prepend=0) > 0]
