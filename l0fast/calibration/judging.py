"""What a calibration is worth: loss and errors by group and by level, errors past the cap, one run beside another."""

from dataclasses import asdict, dataclass

import numpy as np
import torch

from .diagnostics import _vector, relative_errors
from .hierarchy import Family, as_hierarchy
from .objective import Objective, build_objective


@dataclass(frozen=True)
class Judgement:
    """Of :func:`judge`. Each row of groups and levels, and overall, is a dict:

    ``targets`` (how many), ``mean_before, mean_after, max_after`` (absolute relative errors, 0.01 is 1 %),
    ``loss_before, loss_after`` (what they add to the data loss), ``loss_share`` (of the loss after, NaN where that is
    0) and ``past_cap_before, past_cap_after``: how many have an error at or beyond the cap, where no gradient reaches
    them. None where the loss has no cap; targets of weight 0 do not count.
    """

    overall: dict
    groups: list[dict]
    """Also ``group``; worst mean error first. Empty without groups."""
    levels: list[dict]
    """Also ``level`` and ``kind``, 'targets' or 'parents'. Empty without a hierarchy."""
    parents: list[dict]
    """``label, level, children, total, children_total, before, after, rel_error_before, rel_error_after``, worst
    first. Empty without a hierarchy."""

    def to_dict(self) -> dict:
        return asdict(self)


def judge(y, before, after, *, loss_type: str = "mse", target_groups=None, hierarchy=None, **loss_options) -> Judgement:
    """How the loss and the errors of a set of weights spread over groups and levels.

    Args:
        y: targets [n_targets].
        before, after: totals [n_targets] of the initial and of the final weights.
        loss_type, target_groups, hierarchy, **loss_options: as in ``SparseCalibrationWeights.fit``: normalize_groups,
            group_multipliers, target_weights, target_scales, target_tolerances, loss_cap.

    Raises:
        TypeError, ValueError: as fit does, or totals of another length.
    """
    targets = _vector("y", y)
    totals = {"before": _vector("before", before, len(targets)), "after": _vector("after", after, len(targets))}
    objective = build_objective(
        *(targets, len(targets), loss_type), target_groups=target_groups, hierarchy=hierarchy, **loss_options
    )
    figures = _Figures.of_targets(objective, totals)
    groups = []
    if target_groups is not None:
        names = target_groups.cpu() if isinstance(target_groups, torch.Tensor) else target_groups
        labels, codes = np.unique(np.asarray(names), return_inverse=True)
        groups = [{"group": str(label), **figures.row(codes == k)} for k, label in enumerate(labels)]
    groups.sort(key=lambda row: -row["mean_after"])
    levels, parents = [], []
    if hierarchy is not None:
        family = Family.of(as_hierarchy(hierarchy, len(targets)), len(targets))
        above = _Figures.of_parents(objective, totals)
        figures.total = above.total = figures.total + above.total
        for level in range(family.levels.max() + 1):
            for kind, part, at in (("targets", figures, family.target_levels), ("parents", above, family.levels)):
                if (at == level).any():
                    levels.append({"level": level, "kind": kind, **part.row(at == level)})
        groups = [row | {"loss_share": _share(row["loss_after"], figures.total)} for row in groups]
        parents = _parents(family, targets, totals)
    return Judgement(figures.row(np.ones(len(targets), dtype=bool)), groups, levels, parents)


@dataclass
class _Figures:
    """Of targets or of parents: arrays by 'before' and 'after'."""

    errors: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]
    past_cap: dict[str, np.ndarray] | None
    total: float
    """All the loss after."""

    @classmethod
    def of_targets(cls, objective: Objective, totals: dict) -> "_Figures":
        tensors = {key: torch.from_numpy(x) for key, x in totals.items()}
        losses = {key: objective.terms(x).numpy() for key, x in tensors.items()}
        return cls._of(objective.targets, objective.scales, objective.omega, objective.cap, tensors, losses)

    @classmethod
    def of_parents(cls, objective: Objective, totals: dict) -> "_Figures":
        above, tensors = objective.aggregates, {key: torch.from_numpy(x) for key, x in totals.items()}
        losses = {key: objective.parent_terms(x).numpy() for key, x in tensors.items()}
        sums = {key: above.estimates(x) for key, x in tensors.items()}
        return cls._of(above.targets, above.scales, above.omega, objective.cap, sums, losses)

    @classmethod
    def _of(cls, targets, scales, omega, cap: float, totals: dict, losses: dict) -> "_Figures":
        errors = {key: np.abs(relative_errors(x, targets)) for key, x in totals.items()}
        past_cap = None
        if np.isfinite(cap):
            past_cap = {
                key: ((((x - targets) / scales).abs() >= cap) & (omega > 0)).numpy() for key, x in totals.items()
            }
        return cls(errors, losses, past_cap, float(losses["after"].sum()))

    def row(self, which: np.ndarray) -> dict:
        loss = {key: float(x[which].sum()) for key, x in self.losses.items()}
        caps = {key: None if self.past_cap is None else int(self.past_cap[key][which].sum()) for key in loss}
        return {
            "targets": int(which.sum()),
            "mean_before": float(self.errors["before"][which].mean()),
            "mean_after": float(self.errors["after"][which].mean()),
            "max_after": float(self.errors["after"][which].max()),
            "loss_before": loss["before"],
            "loss_after": loss["after"],
            "loss_share": _share(loss["after"], self.total),
            "past_cap_before": caps["before"],
            "past_cap_after": caps["after"],
        }


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _parents(family: Family, targets: np.ndarray, totals: dict) -> list[dict]:
    total, children_total = family.totals(targets)
    sums = {key: family.estimates(x) for key, x in totals.items()}
    errors = {key: relative_errors(x, total) for key, x in sums.items()}
    return [
        {
            "label": family.labels[k],
            "level": int(family.levels[k]),
            "children": len(family.leaves[k]),
            "total": float(total[k]),
            "children_total": float(children_total[k]),
            "before": float(sums["before"][k]),
            "after": float(sums["after"][k]),
            "rel_error_before": float(errors["before"][k]),
            "rel_error_after": float(errors["after"][k]),
        }
        for k in np.argsort(-np.abs(errors["after"]), kind="stable")
    ]


# -- two runs ----------------------------------------------------------------------------------------------------------


def compare_weights(first, second) -> dict:
    """Which records two runs keep, and how alike their weights are.

    Args:
        first, second: [n_records], finite and at least 0, of the same records in the same order.

    Returns:
        ``records``; ``in_both, only_first, only_second, in_neither`` (records of positive weight); ``overlap`` =
        in_both / records in either, in [0, 1]; ``correlation`` (Pearson) of all weights and ``log_correlation`` of the
        logarithms where both are positive; ``median_ratio`` = median of max(a/b, b/a) there, at least 1;
        ``moved_share`` = sum |a - b| / (sum a + sum b), in [0, 1]: 0 for equal weights, 1 where no record is in both.
        NaN where there is nothing to compare or no variance.

    Raises:
        ValueError: not vectors of one length, or a value that is negative or not finite.
    """
    a = _vector("first", first)
    b = _vector("second", second, len(a))
    for name, x in (("first", a), ("second", b)):
        if (bad := np.flatnonzero(~(np.isfinite(x) & (x >= 0)))).size:
            raise ValueError(f"{name}: expected finite non-negative weights, got {x[bad[0]]} at record {bad[0]}")
    both, either = (a > 0) & (b > 0), (a > 0) | (b > 0)
    logs = np.log(a[both]), np.log(b[both])
    total = float(a.sum() + b.sum())
    return {
        "records": len(a),
        "in_both": int(both.sum()),
        "only_first": int(((a > 0) & (b == 0)).sum()),
        "only_second": int(((b > 0) & (a == 0)).sum()),
        "in_neither": int((~either).sum()),
        "overlap": _share(float(both.sum()), float(either.sum())),
        "correlation": _correlation(a, b),
        "log_correlation": _correlation(*logs),
        "median_ratio": float(np.exp(np.median(np.abs(logs[0] - logs[1])))) if both.any() else float("nan"),
        "moved_share": _share(float(np.abs(a - b).sum()), total),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean() if len(a) else a, b - b.mean() if len(b) else b
    spread = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / spread if spread > 0 else float("nan")


def compare_targets(names, targets, first, second, groups=None) -> dict[str, np.ndarray]:
    """Two runs' errors side by side.

    Args:
        names: [n_targets] strings.
        targets, first, second: [n_targets] published totals, and those of each run's weights.
        groups: [n_targets] labels, or None.

    Returns:
        Columns ``name``, ``group`` (where given), ``target, first, second, rel_error_first, rel_error_second`` (as
        :func:`.diagnostics.relative_errors`) and ``better``: 'first', 'second' or 'same'.

    Raises:
        ValueError: a column of another length.
    """
    targets = _vector("targets", targets)
    errors = relative_errors(first, targets), relative_errors(second, targets)
    labels = {"name": names} if groups is None else {"name": names, "group": groups}
    for argument, column in labels.items():
        if len(column) != len(targets):
            raise ValueError(f"{argument}: expected {len(targets)} entries, one for each target, got {len(column)}")
    size = [np.abs(error) for error in errors]
    return {key: np.asarray(column) for key, column in labels.items()} | {
        "target": targets,
        "first": _vector("first", first),
        "second": _vector("second", second),
        "rel_error_first": errors[0],
        "rel_error_second": errors[1],
        "better": np.select([size[0] < size[1], size[1] < size[0]], ["first", "second"], "same"),
    }
