"""Targets that a fit has not seen: K fits, each without a fold of the targets, beside the fit of all.

How well weights meet the targets they were fitted to says little about totals that were not asked for. Here every
target is left out once (rotated k-fold). A fold's fit is that of the problem without the fold's rows: these get weight
0, so one packed matrix serves all, and the other targets of their groups count as much more. Parents in a hierarchy
whose total is made of targets left out are left out too.

What leaks: a target that others determine (the last of the states, where the nation is a target) is met without being
asked for. Folds of whole groups keep the targets of a group together, and so tell more about targets of another kind.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .. import constants as c
from .. import ops
from .hierarchy import as_hierarchy
from .holdout_table import HoldoutResult
from .objective import finite_vector

BY = ("targets", "groups")


@dataclass(frozen=True)
class Holdout:
    """How to leave targets out: in ``folds`` parts, of targets (each group spread over all) or of whole groups."""

    folds: int = 5
    by: str = "targets"
    seed: int = 0
    """Of the draw of the folds."""

    def __post_init__(self):
        for name, least in (("folds", 2), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"holdout: {name}: expected an int, got {type(value).__name__}")
            if value < least:
                raise ValueError(f"holdout: {name}: expected at least {least}, got {value}")
        if self.by not in BY:
            raise ValueError(f"holdout: by: expected one of {', '.join(BY)}, got {self.by!r}")


def as_holdout(given) -> Holdout:
    return given if isinstance(given, Holdout) else Holdout(given)


def fold_codes(holdout: Holdout, n_targets: int, groups=None, weights: np.ndarray | None = None) -> np.ndarray:
    """The fold of each target, int64 [n_targets]; -1 for targets of weight 0, which no fit sees anyway.

    Raises:
        ValueError: fewer targets or groups than folds, or folds of groups without groups.
    """
    rng = np.random.default_rng(holdout.seed)
    counted = np.arange(n_targets) if weights is None else np.flatnonzero(weights > 0)
    labels = np.zeros(n_targets, dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    codes = np.full(n_targets, -1, dtype=np.int64)
    if holdout.by == "targets":
        if holdout.folds > len(counted):
            raise ValueError(f"holdout: folds: expected at most the {len(counted)} targets, got {holdout.folds}")
        shuffled = rng.permutation(counted)
        dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]  # group after group, as cards are dealt
        codes[dealt] = np.arange(len(dealt)) % holdout.folds
        return codes
    if groups is None:
        raise ValueError("holdout: by: expected target_groups for folds of groups, got none")
    names, sizes = np.unique(labels[counted], return_counts=True)
    if holdout.folds > len(names):
        raise ValueError(f"holdout: folds: expected at most the {len(names)} groups, got {holdout.folds}")
    shuffled = rng.permutation(len(names))
    filled = np.zeros(holdout.folds, dtype=np.int64)
    for k in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:  # large ones first: folds of about one size
        fold = int(np.argmin(filled))
        codes[counted[labels[counted] == names[k]]] = fold
        filled[fold] += sizes[k]
    return codes


@dataclass(frozen=True)
class Left:
    """What a fold's fit is told, instead of the options of these names."""

    target_weights: np.ndarray
    hierarchy: object


class Rotation:
    """The folds of a problem, checked; :meth:`run` fits them."""

    def __init__(
        self, holdout, y, n_targets, target_groups=None, normalize_groups=True, target_weights=None, hierarchy=None
    ):
        self.holdout = as_holdout(holdout)
        self.y = finite_vector("y", y, n_targets)
        self.weights = np.ones(n_targets)
        if target_weights is not None:
            self.weights = finite_vector("target_weights", target_weights, n_targets, scalar=True)
        self.groups = None
        if target_groups is not None:
            on_cpu = target_groups.cpu() if isinstance(target_groups, torch.Tensor) else target_groups
            self.groups = _labels(on_cpu, n_targets)
        self.per_group = self.groups is not None and normalize_groups
        self.hierarchy = None if hierarchy is None else as_hierarchy(hierarchy, n_targets)
        self.codes = fold_codes(self.holdout, n_targets, self.groups, self.weights)

    def left(self, fold: int) -> Left:
        out = self.codes == fold
        weights = np.where(out, 0.0, self.weights)
        if self.per_group:  # fit divides by the size of the whole group
            _, labels, sizes = np.unique(self.groups, return_inverse=True, return_counts=True)
            there = sizes - np.bincount(labels, weights=out)
            weights *= (sizes / np.maximum(there, 1))[labels]
        return Left(weights, None if self.hierarchy is None else self.hierarchy.without(out))

    def run(self, start, matrix, fitted, fit_fold: Callable, initial=None) -> HoldoutResult:
        """Fits the folds.

        Args:
            start: the model before its fit; each fold has a copy.
            matrix: what predict takes.
            fitted: the model of all targets.
            fit_fold: called as ``fit_fold(model, left)``.
            initial: totals [n_targets] of the initial weights; None for those of start before gates.

        Raises:
            FloatingPointError, KeyboardInterrupt: with the fold.
        """
        began, estimates, records = time.perf_counter(), [], []
        if initial is None:
            initial = _totals_before(start, matrix)
        for fold in range(self.holdout.folds):
            model = copy.deepcopy(start)
            where = f"holdout: fold {fold + 1} of {self.holdout.folds}"
            try:
                fit_fold(model, self.left(fold))
            except FloatingPointError as error:
                raise FloatingPointError(f"{where}: {error}") from None
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"{where}: stopped; the fit of all targets is done") from None
            estimates.append(_totals(model, matrix))
            records.append(_count(model))
        seconds = time.perf_counter() - began
        return HoldoutResult(
            *(self.holdout.by, self.holdout.seed, self.codes, self.y, np.asarray(initial, dtype=np.float64)),
            *(_totals(fitted, matrix), np.stack(estimates), np.array(records), _count(fitted), self.groups, seconds),
        )


def fit_with_holdout(model, M, y, holdout, options: dict) -> None:
    """Fits the model, then from the same start and with the same noise a copy for each fold; see FitMethods.fit."""
    holdout = as_holdout(holdout)
    if options["resume"]:
        raise ValueError("holdout: expected resume=False, got True; the folds start where the fit starts")
    if options["process_group"] is not None:
        raise ValueError("holdout: works in one process only, got it with process_group")
    matrix = M if model._by_hand() else model.pack(M, fitting=True)
    known = {key: options[key] for key in ("target_groups", "normalize_groups", "target_weights", "hierarchy")}
    rotation = Rotation(holdout, y, model.pack(M).n_targets, **known)
    start = copy.deepcopy(model)
    start._run = None
    before = _noise(model.device)
    model.fit(matrix, y, **options)
    after = _noise(model.device)
    quiet = {"verbose": False, "callback": None, "checkpoint": None}

    def fit_fold(fold, left: Left) -> None:
        _set_noise(model.device, before)
        changed = {"target_weights": left.target_weights, "hierarchy": left.hierarchy}
        fold.fit(matrix, y, **(options | quiet | changed))

    try:
        model.held_out = rotation.run(start, matrix, model, fit_fold)
    finally:
        _set_noise(model.device, after)


def _labels(labels, n_targets: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (n_targets,):
        raise ValueError(f"target_groups: expected shape ({n_targets},), one for each target, got {labels.shape}")
    return labels


def _totals(model, matrix) -> np.ndarray:
    return model.predict(matrix).double().cpu().numpy()


def _totals_before(model, matrix) -> np.ndarray:
    """Totals of exp(log_weight) [n_targets], without gates."""
    packed, log_weight = model.pack(matrix), model.log_weight.detach()
    totals, _ = ops.gated_totals(
        *(log_weight, torch.zeros_like(log_weight), packed.indptr, packed.rows, packed.values, packed.n_targets, None),
        link=c.LINK_EXP,
        gates=False,
    )
    return totals.double().cpu().numpy()


def _count(model) -> int:
    return int((model.get_weights(deterministic=True) > 0).sum())


def _noise(device: torch.device) -> tuple:
    """State of torch's generators, for models without a seed of their own."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_noise(device: torch.device, state: tuple) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
