"""The table of a holdout: errors on targets left out, beside those of the fit and of the initial weights."""

from dataclasses import dataclass

import numpy as np

from .diagnostics import relative_errors

_HEADER = (
    *("held out", "initial mean", "median", "fit mean", "median", "held-out mean", "median"),
    *("better", "fold's own mean", "records"),
)


@dataclass(frozen=True)
class HoldoutResult:
    """Of ``fit(..., holdout=)``. All errors are absolute relative ones, without unit (0.01 is 1 %)."""

    by: str
    seed: int
    fold: np.ndarray
    """int64 [n_targets]: the fold that each target was left out in, from 0; -1 for targets of weight 0."""
    y: np.ndarray
    """Targets [n_targets]."""
    initial: np.ndarray
    """Totals [n_targets] of the initial weights."""
    fitted: np.ndarray
    """Totals [n_targets] of the fit of all targets."""
    estimates: np.ndarray
    """Totals [folds, n_targets] of each fold's fit."""
    records: np.ndarray
    """Records in use [folds]."""
    fitted_records: int
    """Those of the fit of all targets."""
    groups: np.ndarray | None
    """Labels [n_targets], or None."""
    seconds: float
    """What the folds took."""

    @property
    def folds(self) -> int:
        return len(self.estimates)

    @property
    def held_out(self) -> np.ndarray:
        """Totals [n_targets] of weights that were fitted without the target; NaN for targets of weight 0."""
        totals = self.estimates[np.maximum(self.fold, 0), np.arange(len(self.fold))]
        return np.where(self.fold >= 0, totals, np.nan)

    def table(self) -> list[dict]:
        """A row for each fold and one for all of them (``fold`` None).

        ``targets`` held out; mean and median error on these: ``initial_*`` of the initial weights, ``fit_*`` of the fit
        of all targets, which has seen them, ``held_out_*`` of the fit that has not; ``better_share`` of them that the
        latter meets better than the initial weights do; ``own_mean, own_median`` the fold's error on the targets that
        it was fitted to; ``records`` in use (for all: of the fit of all targets).
        """
        own = [self.errors(x)[(self.fold >= 0) & (self.fold != k)] for k, x in enumerate(self.estimates)]
        rows = [
            {"fold": k, **self._row(self.fold == k), **_two("own", own[k]), "records": int(self.records[k])}
            for k in range(self.folds)
        ]
        everything = {**self._row(self.fold >= 0), **_two("own", np.concatenate(own)), "records": self.fitted_records}
        return [*rows, {"fold": None, **everything}]

    def group_table(self) -> list[dict]:
        """The same errors for each group, without those of the folds; worst held-out mean first."""
        if self.groups is None:
            return []
        counted = self.fold >= 0
        labels = np.unique(self.groups[counted])
        rows = [{"group": str(label), **self._row(counted & (self.groups == label))} for label in labels]
        return sorted(rows, key=lambda row: -row["held_out_mean"])

    def to_dict(self) -> dict:
        """What the JSON file of a run has."""
        return {
            **{"folds": self.folds, "by": self.by, "seed": self.seed, "seconds": round(self.seconds, 4)},
            **{"table": self.table(), "groups": self.group_table()},
        }

    def __str__(self) -> str:
        lines = [("fold", *_HEADER)]
        for row in self.table():
            label = "all" if row["fold"] is None else str(row["fold"] + 1)
            errors = [
                f"{100 * row[f'{x}_{y}']:.2f} %" for x in ("initial", "fit", "held_out") for y in ("mean", "median")
            ]
            last = (f"{100 * row['better_share']:.0f} %", f"{100 * row['own_mean']:.2f} %", f"{row['records']:,}")
            lines.append((label, f"{row['targets']:,}", *errors, *last))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(x.rjust(w) for x, w in zip(line, widths, strict=True)) for line in lines)

    def errors(self, totals: np.ndarray) -> np.ndarray:
        """Absolute relative errors [n_targets] of totals."""
        return np.abs(relative_errors(totals, self.y))

    def _row(self, which: np.ndarray) -> dict:
        initial, fit, held = (self.errors(x)[which] for x in (self.initial, self.fitted, self.held_out))
        errors = {**_two("initial", initial), **_two("fit", fit), **_two("held_out", held)}
        return {"targets": int(which.sum()), **errors, "better_share": float((held < initial).mean())}


def _two(name: str, errors: np.ndarray) -> dict:
    return {f"{name}_mean": float(errors.mean()), f"{name}_median": float(np.median(errors))}
