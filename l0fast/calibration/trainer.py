"""A calibration run: checks, its start or continuation, and the epochs in the engine."""

import numpy as np
import torch

from .. import ops
from . import checkpoint as checkpoints
from . import hooks
from .budget import RecordBudget, unsettle
from .chunks import FitOptions, run_chunks
from .constraints import UNCONSTRAINED, WeightConstraints, signature
from .gated_model import GatedModel
from .mass_row import with_mass_row
from .matrix import PackedMatrix
from .objective import Objective
from .progress import CalibrationReporter
from .projection import project, unproject
from .sharding.group import Alone, ShardGroup
from .state import MOMENTS, RunState
from .stepwise import step_epochs


def train(
    model,
    M,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    budget: RecordBudget | None,
    group: Alone | ShardGroup,
    constraints: WeightConstraints | None = None,
) -> None:
    """Runs options.epochs epochs on the model's parameters, checked; see SparseCalibrationWeights.fit."""
    here = {"M": group.matrix_sha256(matrix), **_signature(objective, options, budget, constraints)}
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
    run.signature = here
    if budget is None:
        run.lambda_l0, run.log_multiplier = options.lambda_l0, None
    elif run.log_multiplier is None:
        run.lambda_l0 = 0.0  # until the first look: nobody knows yet what an open gate is worth
    by_hand = model._by_hand()
    constraints = constraints or UNCONSTRAINED
    running = (matrix, objective)
    if constraints.total is not None:
        running = with_mass_row(*running, constraints.total)

    def epochs(count: int) -> np.ndarray:
        if by_hand:
            return hooks.epochs(model, run, M, objective, options, count)
        return group_epochs(group, model, run, *running, options, count, constraints)

    save = None if options.checkpoint is None else lambda: checkpoints.save(model, options.checkpoint, group)
    reporter = CalibrationReporter(model, options, M if by_hand else matrix, objective, group)
    steer = None if budget is None else lambda: budget.steer(model, run, options.lr)
    run_chunks(run, options, epochs, reporter, "a smaller lr or other target_scales", save, steer, group)
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


def group_epochs(
    group: Alone | ShardGroup,
    model,
    run: RunState,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    count: int,
    constraints: WeightConstraints = UNCONSTRAINED,
) -> np.ndarray:
    """Metrics [count, 4] of the next epochs, wherever the records are.

    A group of one process takes the steps of many: the engine rounds its totals to float32, and a result must not
    depend on the number of processes.
    """
    epochs = (model, run, matrix, objective, options, count, constraints)
    return step_epochs(*epochs, together=group.together) if group.sharded else engine_epochs(*epochs)


def engine_epochs(
    model: GatedModel,
    run: RunState,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    count: int,
    constraints: WeightConstraints = UNCONSTRAINED,
    lambda_l1: float = 0.0,
) -> np.ndarray:
    """Metrics [count, 4] of that many epochs in compiled code."""
    if not objective.plain:
        return step_epochs(model, run, matrix, objective, options, count, constraints, lambda_l1)
    trained = model._trained()
    metrics = ops.calibration_epochs_(
        *(trained["weight"], trained["alpha"], *(run.moments[name] for name in MOMENTS)),
        *(matrix.indptr, matrix.rows, matrix.values),
        *(objective.targets, objective.scales, objective.omega, objective.tolerances, constraints.anchor, run.seed),
        bias=trained.get("bias"),
        bias_exp_avg=run.moments.get("bias_exp_avg"),
        bias_exp_avg_sq=run.moments.get("bias_exp_avg_sq"),
        rho=objective.rho,
        cap=objective.cap,
        first_epoch=run.epoch,
        epochs=count,
        lambda_l0=run.lambda_l0,
        lambda_l2=options.lambda_l2,
        lr=options.lr,
        low=constraints.low,
        high=constraints.high,
        lambda_l1=lambda_l1,
        **model._engine_options(),
    )
    return metrics.cpu().numpy()


def _signature(
    objective: Objective,
    options: FitOptions,
    budget: RecordBudget | None,
    constraints: WeightConstraints | None = None,
) -> dict:
    """What a resumed run must have in common with its checkpoint besides M, by the name that fit gives it."""
    fitted = {name: getattr(options, name) for name in ("lambda_l0", "lambda_l2", "lr", "loss_type")}
    target = None if budget is None else budget.target
    if budget is not None:
        fitted["lambda_l0"] = None  # the budget sets it
    return {**objective.sha256(), "target_records": target, **fitted, **signature(constraints)}


def run_facts(model, matrix: PackedMatrix, objective: Objective, options: FitOptions, budget, **more) -> dict:
    """What the processes of a run must have in common, by the name that fit or the constructor gives it."""
    rhythm = ("epochs", "verbose", "verbose_freq", "resume", "checkpoint_freq")
    facts = {
        "M": f"{matrix.n_targets} targets, {matrix.dtype}",
        "exact": budget is not None and budget.exact,
        "checkpoint": options.checkpoint is not None,
        "callback": options.callback is not None,
        "epoch of the run": model.epoch,
        **{
            name: str(getattr(model, name))
            for name in ("beta", "gamma", "zeta", "use_gates", "seed", "log_weight_jitter_sd")
        },
        **{name: getattr(options, name) for name in rhythm},
    }
    return {**facts, **_signature(objective, options, budget), **more}
