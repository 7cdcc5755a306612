"""How well a set of weights meets its targets, and how uneven the weights are. Arrays in, numbers out."""

import numpy as np
import torch

TABLE_COLUMNS = ("name", "group", "target", "before", "after", "rel_error_before", "rel_error_after", "improved")


def _vector(name: str, x, length: int | None = None) -> np.ndarray:
    array = np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "a vector" if length is None else f"shape ({length},)"
        raise ValueError(f"{name}: expected {expected}, got shape {array.shape}")
    return array


def relative_errors(estimates, targets) -> np.ndarray:
    """Signed relative error of each target: ``(estimate - target) / |target|``.

    A target of 0 has no relative error; its absolute error stands in (a denominator of 1), so that a miss still shows.

    Args:
        estimates, targets: [n_targets], in the targets' own units.

    Returns:
        [n_targets] float64, without unit (0.01 is 1 %).

    Raises:
        ValueError: the shapes differ.
    """
    targets = _vector("targets", targets)
    estimates = _vector("estimates", estimates, len(targets))
    with np.errstate(over="ignore"):  # an error beyond 1e308 is infinite, which is what it should show
        return (estimates - targets) / np.where(targets == 0, 1.0, np.abs(targets))


def quality(estimates, targets) -> dict[str, float]:
    """Mean, median and largest absolute relative error, and the share of targets within 1, 5 and 10 %.

    Args:
        estimates, targets: [n_targets].

    Returns:
        ``mean_error``, ``median_error``, ``max_error``, ``share_within_1``, ``share_within_5``, ``share_within_10``,
        all without unit (0.01 is 1 %; a share of 1 is all targets).

    Raises:
        ValueError: the shapes differ or there are no targets.
    """
    errors = np.abs(relative_errors(estimates, targets))
    if not len(errors):
        raise ValueError("targets: expected at least one target, got none")
    figures = {"mean_error": errors.mean(), "median_error": np.median(errors), "max_error": errors.max()}
    figures |= {f"share_within_{percent}": (errors <= percent / 100).mean() for percent in (1, 5, 10)}
    return {key: float(value) for key, value in figures.items()}


def target_table(names, targets, before, after, groups=None) -> dict[str, np.ndarray]:
    """One row for each target: what it is, what the weights gave before and after, and both relative errors.

    Args:
        names: [n_targets] strings.
        targets, before, after: [n_targets] published totals, and the totals of the initial and of the final weights.
        groups: [n_targets] labels, or None.

    Returns:
        Columns by name, each [n_targets], in the order of ``TABLE_COLUMNS`` (without ``group`` where groups is None).
        The errors are those of :func:`relative_errors`; ``improved`` is True where the absolute error got smaller.

    Raises:
        ValueError: a column of another length.
    """
    targets = _vector("targets", targets)
    error_before, error_after = relative_errors(before, targets), relative_errors(after, targets)
    labels = {"name": names} if groups is None else {"name": names, "group": groups}
    for argument, column in labels.items():
        if len(column) != len(targets):
            raise ValueError(f"{argument}: expected {len(targets)} entries, one for each target, got {len(column)}")
    return {key: np.asarray(column) for key, column in labels.items()} | {
        "target": targets,
        "before": np.asarray(before, dtype=np.float64),
        "after": np.asarray(after, dtype=np.float64),
        "rel_error_before": error_before,
        "rel_error_after": error_after,
        "improved": np.abs(error_after) < np.abs(error_before),
    }


def group_table(table: dict[str, np.ndarray]) -> list[dict]:
    """Mean absolute relative error before and after for each group of a :func:`target_table`, worst first."""
    labels, codes, sizes = np.unique(table["group"], return_inverse=True, return_counts=True)
    means = {
        key: np.bincount(codes, weights=np.abs(table[f"rel_error_{key}"]), minlength=len(labels)) / sizes
        for key in ("before", "after")
    }
    return [
        {
            "group": str(labels[k]),
            "targets": int(sizes[k]),
            "mean_before": float(means["before"][k]),
            "mean_after": float(means["after"][k]),
            "max_after": float(np.abs(table["rel_error_after"][codes == k]).max()),
        }
        for k in np.argsort(-means["after"], kind="stable")
    ]


def weight_statistics(weights, initial=None) -> dict[str, float]:
    """How concentrated a set of weights is.

    With ``w`` the positive weights and ``k`` their number::

        ess                 = (sum w)^2 / sum w^2         Kish's effective sample size, in records
        design_effect       = k / ess = 1 + cv(w)^2       the factor by which unequal weights inflate a variance
        largest_ratio       = max w / median w
        top_1_percent_share = the share of sum w that the ceil(k / 100) largest weights carry

    Args:
        weights: [n_records], finite and non-negative; 0 is a record that was dropped.
        initial: [n_records] weights before calibration, or None.

    Returns:
        ``records, count, ess, design_effect, largest_ratio, top_1_percent_share, min, max, total`` (min and max over
        the positive weights) and, with ``initial``, ``largest_change`` = max over kept records of w / initial.
        Without any positive weight the ratios are NaN.

    Raises:
        ValueError: not a vector, another length, or a value that is negative or not finite.

    Source: Kish 1965, Survey Sampling, section 11.7 (effective sample size, design effect of unequal weights).
    """
    weights = _vector("weights", weights)
    if (bad := np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))).size:
        raise ValueError(f"weights: expected finite non-negative values, got {weights[bad[0]]} at record {bad[0]}")
    kept = weights > 0
    positive = weights[kept]
    count, total = len(positive), float(positive.sum())
    figures = {"records": len(weights), "count": count, "total": total}
    if count == 0:
        keys = ("ess", "design_effect", "largest_ratio", "top_1_percent_share", "min", "max")
        figures |= dict.fromkeys(keys, float("nan")) | {"ess": 0.0}
    else:
        scaled = positive / positive.max()  # so that no square overflows or vanishes
        ess = float(scaled.sum() ** 2 / (scaled**2).sum())
        top = -(-count // 100)
        figures |= {
            "ess": ess,
            "design_effect": count / ess,
            "largest_ratio": float(positive.max() / np.median(positive)),
            "top_1_percent_share": float(np.partition(positive, count - top)[count - top :].sum() / total),
            "min": float(positive.min()),
            "max": float(positive.max()),
        }
    if initial is not None:
        base = _vector("initial", initial, len(weights))[kept]
        change = positive[base > 0] / base[base > 0]
        figures["largest_change"] = float(change.max()) if len(change) else float("nan")
    return figures
