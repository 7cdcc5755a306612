"""A calibration run: its start or continuation, its epochs, and what makes its end exact."""

import numpy as np
import torch

from . import checkpoint as checkpoints
from . import hooks
from .budget import unsettle
from .chunks import FitOptions, run_chunks
from .constraints import UNCONSTRAINED
from .epochs import group_epochs
from .mass_row import with_mass_row
from .matrix import PackedMatrix
from .objective import Objective
from .plan import RunPlan, run_signature
from .progress import CalibrationReporter
from .projection import project, unproject
from .sharding.group import Alone, ShardGroup
from .state import RunState
from .stopping import deterministic_objective


def train(model, M, matrix: PackedMatrix, objective: Objective, options: FitOptions, plan: RunPlan) -> None:
    """Runs options.epochs epochs on the model's parameters, checked; see SparseCalibrationWeights.fit."""
    group, budget, constraints = plan.group, plan.budget, plan.constraints or UNCONSTRAINED
    here = {"M": group.matrix_sha256(matrix), **run_signature(objective, options, plan)}
    running = (matrix, objective)
    if constraints.total is not None:
        running = with_mass_row(*running, constraints.total)  # before anything changes: it may not fit
    run = model._run if options.resume else None
    if run is not None:
        if run.loaded_from is not None:
            group.saved(run.loaded_from, run.epoch)
        checkpoints.compare_signatures(run, here)
        if run.refitted:
            raise ValueError("resume: expected a run to continue, got one that ended with a refit of its weights")
        unproject(model, run)
        unsettle(model, run)
    else:
        run = _start_run(model, group)
    if plan.stopping is None or run.signature != here:
        run.least_objective = None  # nobody watched, or it was another objective
    run.signature = here
    if budget is None:
        run.lambda_l0, run.log_multiplier = options.lambda_l0, None
    elif run.log_multiplier is None:
        run.lambda_l0 = 0.0  # until the first look: nobody knows yet what an open gate is worth
    by_hand = model._by_hand()

    def epochs(count: int) -> np.ndarray:
        now = options if plan.schedule is None else plan.schedule.options(model, run, options)
        if by_hand:
            return hooks.epochs(model, run, M, objective, now, count)
        return group_epochs(group, model, run, *running, now, count, constraints)

    seen = M if by_hand else matrix
    price = (options.lambda_l0, options.lambda_l2, constraints.anchor)

    def without_noise() -> float:
        return deterministic_objective(model, seen, objective, *price, group)

    save = None if options.checkpoint is None else lambda: checkpoints.save(model, options.checkpoint, group)
    run_chunks(
        *(run, options, epochs, CalibrationReporter(model, options, seen, objective, group)),
        "a smaller lr or other target_scales",
        save=save,
        steer=None if budget is None else lambda: budget.steer(model, run, options.lr),
        ended=None if plan.stopping is None else lambda: plan.stopping.ends(run, without_noise),
        scheduled=plan.schedule is not None,
        group=group,
    )
    if budget is not None:
        budget.settle(model, run)
    if constraints.projects:
        project(model, constraints, budget)
    if save is not None and (budget is not None or constraints.projects):
        save()  # once more: a file of the finished run has the records and weights that were asked for


def _start_run(model, group: Alone | ShardGroup) -> RunState:
    """Jitter first, then the seed of the gates: the order in which l0-python draws."""
    if model.log_weight_jitter_sd > 0:
        with torch.no_grad():
            model.log_weight += model._normal() * model.log_weight_jitter_sd
    model._run = RunState.new(group.seed(model._draw_seed()), model._trained())
    return model._run
