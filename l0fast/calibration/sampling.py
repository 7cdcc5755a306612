"""Samples of a fixed size with unequal probabilities: for whoever wants records drawn, not the k most probable."""

import numpy as np

from .objective import finite_vector


def inclusion_probabilities(sizes, k: int) -> np.ndarray:
    """Probabilities proportional to sizes that sum to k, none above 1.

    ``pi_i = min(1, c sizes_i)``: units that would exceed 1 are certain, and the rest share what is left.

    Args:
        sizes: [n], at least 0: gates, say (``model.get_deterministic_gates()``). 0 is never drawn.
        k: sample size, from 1 to the number of positive sizes.

    Returns:
        float64 [n].

    Raises:
        TypeError, ValueError: sizes negative, not finite or no vector; k out of range, with the numbers.
    """
    sizes = finite_vector("sizes", sizes, len(sizes), item="unit")
    if (bad := np.flatnonzero(sizes < 0)).size:
        raise ValueError(f"sizes: expected non-negative values, got {sizes[bad[0]]} at unit {bad[0]}")
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k: expected an int, got {type(k).__name__}")
    positive = int(np.count_nonzero(sizes))
    if not 1 <= k <= positive:
        raise ValueError(f"k: expected 1 to {positive} (the positive sizes), got {k}")
    # With the m largest certain, c = (k - m) / (sum of the others): the first m for which the next one fits.
    order = np.argsort(-sizes, kind="stable")
    ordered = sizes[order] / sizes.max()
    rest = np.cumsum(ordered[::-1])[::-1]
    fits = (k - np.arange(k)) * ordered[:k] <= rest[:k] * (1 + 1e-12)
    certain = int(np.argmax(fits)) if fits.any() else k
    chances = np.zeros(len(sizes))
    chances[order[:certain]] = 1
    if certain < k:
        chances[order[certain:]] = np.minimum((k - certain) * ordered[certain:] / rest[certain], 1)
    return chances


def sampford(sizes, k: int, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draws exactly k units, each with exactly its :func:`inclusion_probabilities`.

    Sampford's design, ``P(s) ~ sum_{i in s} pi_i prod_{j in s, j != i} pi_j / (1 - pi_j)``, drawn by rejection: t by a
    coin for each unit until it has k - 1 members, kept with a probability proportional to ``k - sum_{j in t} pi_j``,
    then one more unit outside t with probability proportional to pi. A try takes n random numbers, and their expected
    number grows with sqrt(k); certain units are set aside first.

    Args:
        sizes: [n], at least 0.
        k: sample size.
        seed: of numpy.random.default_rng; None for a fresh one.

    Returns:
        Indices int64 [k], increasing, and the inclusion probabilities float64 [n]: a drawn record's weight divided by
        its probability makes totals unbiased.

    Raises:
        TypeError, ValueError: as :func:`inclusion_probabilities`.

    Source: Sampford 1967, Biometrika 54 (3/4), 499-513.
    """
    chances = inclusion_probabilities(sizes, k)
    generator = np.random.default_rng(seed)
    certain = np.flatnonzero(chances >= 1 - 1e-12)
    units = np.flatnonzero((chances > 0) & (chances < 1 - 1e-12))
    left = k - len(certain)
    drawn = units[_draw(chances[units], left, generator)] if left else np.empty(0, dtype=np.int64)
    return np.sort(np.concatenate([certain, drawn])), chances


def _draw(chances: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """k of the units with chances strictly between 0 and 1 that sum to k."""
    most = k - np.sort(chances)[: k - 1].sum()
    coins = _tilted(chances, k - 1) if k > 1 else np.zeros(len(chances))
    while True:
        inside = generator.random(len(chances)) < coins
        if np.count_nonzero(inside) != k - 1:
            continue
        if generator.random() * most < k - chances[inside].sum():
            outside = np.flatnonzero(~inside)
            share = chances[outside] / chances[outside].sum()
            return np.append(np.flatnonzero(inside), generator.choice(outside, p=share))


def _tilted(chances: np.ndarray, size: int) -> np.ndarray:
    """Coins with the same ratios of odds whose expected number of heads is size: fewer tries, the same samples."""
    odds = chances / (1 - chances)
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        heads = odds * np.exp(middle)
        low, high = (middle, high) if (heads / (1 + heads)).sum() < size else (low, middle)
    heads = odds * np.exp(low)
    return heads / (1 + heads)
