"""Parents of targets: a county's total is part of its state's, and the state's of the nation's.

A parent's estimate is the sum of its children's estimates, so the matrix needs no row for it. The loss gets a term for
each parent h, of the form that the targets' terms have::

    omega_h rho((sum over its children of y_hat_j - T_h) / scale_h)

Source: benchmarking of small areas to published totals of larger ones, as Pfeffermann 2013 (Statistical Science 28,
doi 10.1214/12-STS395) reviews it; here as a penalty, so that totals that contradict each other still have a best fit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Hierarchy:
    """Which targets add up to what. See :meth:`from_parents` for a column of parents' labels."""

    children: Mapping[str, Sequence[int | str]]
    """By a parent's label: indices of targets, and labels of other parents. A target may have several parents (states
    add up to the nation, and age classes too), but counts once in each of them."""
    totals: Mapping[str, float] | None = None
    """Published totals by label, in the targets' units. A parent that is not here has the value of its own target
    (``rows``), or else the sum of its children's values: what they say already, now together."""
    rows: Mapping[str, int] | None = None
    """Parents that are targets too, with a row of the matrix: their indices by label."""
    weight: float = 1.0
    """What a parent's error counts, at least 0; 1 is as much as a target's without weights and groups."""
    level_weights: Mapping[int, float] | None = None
    """Factors by level: 1 for parents of targets alone, 2 for parents of these, and so on."""
    weights: Mapping[str, float] | None = None
    """Factors by label."""

    @classmethod
    def from_parents(cls, parent, names=None, of: Mapping[str, str] | None = None, **options) -> "Hierarchy":
        """From a column: the label of each target's parent.

        Args:
            parent: [n_targets] labels; None, NaN, an empty text or a negative number where there is none.
            names: [n_targets] names of the targets, or None. A label that is a target's name means this target: its
                value is the parent's value.
            of: the parent's label by the label of a parent that is not itself a target.
            **options: ``totals, weight, level_weights, weights``.

        Raises:
            ValueError: no target has a parent, a label names two targets, or ``of`` names what is no parent.
        """
        labels = [None if _missing(entry) else str(entry) for entry in _plain_list(parent)]
        children: dict[str, list[int | str]] = {}
        for target, label in enumerate(labels):
            if label is not None:
                children.setdefault(label, []).append(target)
        if not children:
            raise ValueError("hierarchy: expected at least one target with a parent, got none")
        rows: dict[str, int] = {}
        for target, name in enumerate([] if names is None else map(str, names)):
            if name in children and rows.setdefault(name, target) != target:
                raise ValueError(f"hierarchy: parent {name!r} is the name of targets {rows[name]} and {target}")
        # In the order given, which may name an upper parent before or after its own.
        for label, above in (of or {}).items():
            if label in rows:
                raise ValueError(f"hierarchy: {label!r} is a target; its parent belongs beside the target")
            children.setdefault(str(above), []).append(str(label))
        return cls(children, rows=rows or None, **options)

    def consistency(self, y) -> list[dict]:
        """How far each parent's total is from what its children's values add up to, worst first.

        Args:
            y: targets [n_targets].

        Returns:
            A dict for each parent: ``label, level, children`` (targets below it), ``total, children_total,
            rel_difference`` = (children_total - total) / |total|, with 1 for a total of 0.
        """
        values = np.asarray(y, dtype=np.float64)
        family = Family.of(self, len(values))
        totals, sums = family.totals(values)
        differences = (sums - totals) / np.where(totals == 0, 1.0, np.abs(totals))
        return [
            {
                "label": family.labels[k],
                "level": int(family.levels[k]),
                "children": len(family.leaves[k]),
                "total": float(totals[k]),
                "children_total": float(sums[k]),
                "rel_difference": float(differences[k]),
            }
            for k in np.argsort(-np.abs(differences), kind="stable")
        ]

    def without(self, left_out: np.ndarray) -> "Hierarchy":
        """With weight 0 for parents whose total is made of targets that are left out (bool [n_targets]).

        A published total stays: it is known without them.
        """
        family = Family.of(self, len(left_out))
        touched: dict[str, bool] = {}
        for label in family.labels:
            if label in (self.totals or {}):
                touched[label] = False
            elif label in (self.rows or {}):
                touched[label] = bool(left_out[self.rows[label]])
            else:
                touched[label] = any(touched[c] if isinstance(c, str) else left_out[c] for c in self.children[label])
        none = {label: 0.0 for label, there in touched.items() if there}
        return replace(self, weights={**(self.weights or {}), **none})


@dataclass(frozen=True)
class Family:
    """A hierarchy, checked, with children before their parents."""

    hierarchy: Hierarchy
    labels: list[str]
    leaves: list[np.ndarray]
    """Indices of the targets that add up to each parent."""
    levels: np.ndarray
    """[n_parents]"""
    target_levels: np.ndarray
    """[n_targets]: 0, or that of the parent that the target is too."""

    @classmethod
    def of(cls, hierarchy: Hierarchy, n_targets: int) -> "Family":
        """Raises TypeError or ValueError for the first thing that is wrong, by label."""
        children, rows = hierarchy.children, hierarchy.rows or {}
        if not isinstance(children, Mapping) or not children:
            raise TypeError(f"hierarchy: expected children by parent, got {children!r:.60}")
        for label, members in children.items():
            _check_members(label, members, children, n_targets)
        for name, given in (("totals", hierarchy.totals), ("rows", hierarchy.rows), ("weights", hierarchy.weights)):
            for label in given or ():
                if label not in children:
                    raise ValueError(f"hierarchy: {name} of {label!r}, which has no children")
        for label, target in rows.items():
            if isinstance(target, bool) or not isinstance(target, int | np.integer) or not 0 <= target < n_targets:
                raise ValueError(f"hierarchy: rows of {label!r}: expected an index below {n_targets}, got {target!r}")
        owner = {int(target): label for label, target in rows.items()}
        below = {
            # A list: the order of a set of texts is another in every process, and the order decides the last bits.
            label: [c if isinstance(c, str) else owner[c] for c in members if isinstance(c, str) or c in owner]
            for label, members in children.items()
        }
        try:
            labels = list(TopologicalSorter(below).static_order())
        except CycleError as error:
            raise ValueError(f"hierarchy: {' is below '.join(map(repr, error.args[1]))}, a circle") from None
        leaves: dict[str, np.ndarray] = {}
        levels: dict[str, int] = {}
        for label in labels:
            levels[label] = 1 + max((levels[other] for other in below[label]), default=0)
            targets = [int(c) for c in children[label] if not isinstance(c, str)]
            parts = [np.array(targets, dtype=np.int64)] + [leaves[c] for c in children[label] if isinstance(c, str)]
            leaves[label], counts = np.unique(np.concatenate(parts), return_counts=True)
            if (twice := leaves[label][counts > 1]).size:
                raise ValueError(f"hierarchy: target {twice[0]} is below {label!r} more than once")
        target_levels = np.zeros(n_targets, dtype=np.int64)
        for label, target in rows.items():
            target_levels[target] = levels[label]
        return cls(hierarchy, labels, [leaves[x] for x in labels], np.array([levels[x] for x in labels]), target_levels)

    def totals(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each parent: its total, and what its children's values add up to."""
        given, rows = self.hierarchy.totals or {}, self.hierarchy.rows or {}
        total: dict[str, float] = {}
        sums = np.empty(len(self.labels))
        for k, label in enumerate(self.labels):
            members = self.hierarchy.children[label]
            sums[k] = math.fsum(total[c] if isinstance(c, str) else y[c] for c in members)
            own = y[rows[label]] if label in rows else sums[k]
            total[label] = float(given.get(label, own))
            if not math.isfinite(total[label]):
                raise ValueError(f"hierarchy: total of {label!r}: expected a finite number, got {total[label]}")
        return np.array([total[label] for label in self.labels]), sums

    def estimates(self, totals: np.ndarray) -> np.ndarray:
        """Of each parent [n_parents], from the targets' estimates [n_targets]."""
        return np.array([totals[leaves].sum() for leaves in self.leaves])

    def omega(self, per_level: bool) -> np.ndarray:
        """Weight of each parent; with per_level, those of a level are divided by their number, as a group's are."""
        hierarchy, known = self.hierarchy, set(self.levels.tolist())
        factors = {"weight": {None: hierarchy.weight}}
        factors |= {"level_weights": hierarchy.level_weights or {}, "weights": hierarchy.weights or {}}
        for name, given in factors.items():
            for key, factor in given.items():
                if not isinstance(factor, int | float | np.number) or not (math.isfinite(factor) and factor >= 0):
                    of = "" if key is None else f" of {key!r}"
                    raise ValueError(f"hierarchy: {name}{of}: expected a finite non-negative number, got {factor!r}")
        for level in factors["level_weights"]:
            if level not in known:
                raise ValueError(f"hierarchy: level_weights: expected levels 1 to {max(known)}, got {level!r}")
        by_level, by_label = factors["level_weights"], factors["weights"]
        omega = np.array([float(by_label.get(label, 1.0)) for label in self.labels])
        if per_level:  # one that is switched off is as if it were not there
            sizes = np.bincount(self.levels, weights=omega > 0)
            omega /= np.maximum(sizes[self.levels], 1)
        return omega * hierarchy.weight * np.array([float(by_level.get(level, 1.0)) for level in self.levels.tolist()])


def as_hierarchy(given, n_targets: int) -> Hierarchy:
    """A Hierarchy as it is, children by parent (a mapping), or a column of parents' labels."""
    if isinstance(given, Hierarchy):
        return given
    if isinstance(given, Mapping):
        return Hierarchy(given)
    if isinstance(given, str | bytes) or not hasattr(given, "__len__"):
        expected = "a Hierarchy, children by parent or a parent for each target"
        raise TypeError(f"hierarchy: expected {expected}, got {type(given).__name__}")
    if len(given) != n_targets:
        raise ValueError(f"hierarchy: expected {n_targets} parents, one for each target, got {len(given)}")
    return Hierarchy.from_parents(given)


def _check_members(label, members, children: Mapping, n_targets: int) -> None:
    if not isinstance(label, str) or not label:
        raise TypeError(f"hierarchy: expected a text as a parent's label, got {label!r}")
    if isinstance(members, str) or not hasattr(members, "__len__") or not len(members):
        raise ValueError(f"hierarchy: {label!r}: expected a list of children, got {members!r}")
    for child in members:
        known = child in children if isinstance(child, str) else _is_index(child) and 0 <= child < n_targets
        if not known:
            expected = f"indices of targets below {n_targets} or labels of other parents"
            raise ValueError(f"hierarchy: {label!r}: expected {expected}, got {child!r}")


def _is_index(x) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _plain_list(column) -> list:
    column = column.cpu() if isinstance(column, Tensor) else column
    return column.tolist() if hasattr(column, "tolist") else list(column)


def _missing(entry) -> bool:
    if entry is None or type(entry).__name__ == "NAType" or (isinstance(entry, str) and not entry.strip()):
        return True
    return isinstance(entry, int | float) and not entry >= 0
