"""A path of record budgets, from large to small: what fewer records cost."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from .budget import checked_budget
from .constraints import checked_constraints
from .diagnostics import quality, weight_statistics
from .objective import build_objective
from .refit import check_refit


@dataclass(frozen=True)
class FrontierPoint:
    """One budget's result, with deterministic gates."""

    target: int
    """Records asked for."""
    records: int
    """Records in use."""
    lambda_l0: float
    """Mean price of a gate over the last tenth of the point's epochs."""
    loss: float
    """Data loss of these weights, without noise."""
    mean_error: float
    """Mean absolute relative error of the targets (0.01 is 1 %), as diagnostics.quality has it."""
    max_error: float
    ess: float
    """Kish's effective sample size, in records."""
    weights: np.ndarray
    """float32 [n]."""


_LOSS_OPTIONS = (
    *("target_groups", "normalize_groups", "group_multipliers", "target_weights", "target_scales"),
    *("target_tolerances", "loss_cap", "hierarchy"),
)
_CONSTRAINTS = ("bounds", "min_weight", "max_weight_ratio", "mass", "anchor")
_NOT_HERE = ("lambda_l0", "lambda_share", "target_records", "l1_lambda", "resume", "holdout")
_NOT_SHARDED = "process_group: path works in one process only; call fit(target_records=..., process_group=...) instead"


def frontier(model, records, M, y, epochs: int, options: dict) -> list[FrontierPoint]:
    """See SparseCalibrationWeights.path."""
    budgets = _checked(model, records, options)
    matrix = model.pack(M, fitting=True)
    objective = build_objective(
        *(y, matrix.n_targets, options.get("loss_type", "mse")),
        **{name: options[name] for name in _LOSS_OPTIONS if name in options},
        device=model.log_weight.device,
    )
    gated, points = None, []
    for k in budgets:
        if gated is not None:
            _back_to_gates(model, gated)
        model.fit(matrix, y, epochs=epochs, target_records=k, resume=bool(points), **{**options, "refit": False})
        if options.get("refit", False):
            run, parameters = model._run, (model.log_weight.detach().clone(), model.log_alpha.detach().clone())
            gated = (*parameters, run.unsettled, run.unprojected)
            refit_options = {name: options[name] for name in ("lr", "lambda_l2", *_CONSTRAINTS) if name in options}
            loss_options = {name: options[name] for name in ("loss_type", *_LOSS_OPTIONS) if name in options}
            model.refit(matrix, y, epochs, **{"lr": 0.01, **refit_options}, **loss_options)
        points.append(_point(model, matrix, objective, k, epochs))
    return points


def _back_to_gates(model, gated: tuple) -> None:
    """Undoes a refit, so that the path goes on with its gates and Adam's moments."""
    with torch.no_grad():
        model.log_weight.copy_(gated[0])
        model.log_alpha.copy_(gated[1])
    model._run.refitted, model._run.unsettled, model._run.unprojected = False, *gated[2:]


def _point(model, matrix, objective, k: int, epochs: int) -> FrontierPoint:
    with torch.no_grad():
        weights = model.get_weights(deterministic=True).cpu().numpy()
        totals = model.predict(matrix).double()
    errors = quality(totals, objective.targets)
    prices = model.history["lambda_l0"][-max(1, epochs // 10) :]
    return FrontierPoint(
        target=int(k),
        records=int((weights > 0).sum()),
        lambda_l0=float(prices.mean()) if len(prices) else 0.0,
        loss=float(objective.loss(totals)),
        mean_error=errors["mean_error"],
        max_error=errors["max_error"],
        ess=weight_statistics(weights)["ess"],
        weights=weights,
    )


def _checked(model, records, options: dict) -> list[int]:
    if options.get("process_group") is not None or (model.shard is not None and model.shard.size < model.shard.n_total):
        raise ValueError(_NOT_SHARDED)
    check_refit(model, options.get("refit", False))
    for name in _NOT_HERE:
        if name in options:
            raise ValueError(f"{name}: not an option of path, which sets it itself")
    try:
        budgets = list(records)
    except TypeError:
        raise TypeError(f"records: expected a list of ints, got {type(records).__name__}") from None
    if not budgets:
        raise ValueError("records: expected at least one budget, got none")
    for k in budgets:
        checked_budget(model, k, options.get("exact", False))
        checked_constraints(model, **{x: options[x] for x in _CONSTRAINTS if x in options}, target_records=k)
    for above, below in itertools.pairwise(budgets):
        if below >= above:
            raise ValueError(f"records: expected budgets that decrease, got {below} after {above}")
    return budgets
