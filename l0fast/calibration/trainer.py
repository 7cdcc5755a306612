"""A calibration run: checks, its start or continuation, and the epochs in the engine."""

import numpy as np
import torch

from .. import ops
from . import checkpoint as checkpoints
from . import hooks
from .budget import RecordBudget, unsettle
from .chunks import FitOptions, run_chunks
from .gated_model import GatedModel
from .matrix import PackedMatrix
from .objective import Objective
from .progress import CalibrationReporter
from .schedule import Schedule
from .state import MOMENTS, RunState, check_parameters
from .stopping import EarlyStopping, deterministic_objective


def train(
    model,
    M,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    budget: RecordBudget | None = None,
    stopping: EarlyStopping | None = None,
    schedule: Schedule | None = None,
) -> None:
    """Runs options.epochs epochs on the model's parameters; see SparseCalibrationWeights.fit."""
    check_parameters(log_weight=model.log_weight, log_alpha=model.log_alpha)
    signature = _signature(matrix, objective, options, budget, schedule)
    run = model._run if options.resume else None
    if run is not None:
        checkpoints.compare_signatures(run, signature)
        if run.refitted:
            raise ValueError("resume: expected a run to continue, got one that ended with a refit of its weights")
        unsettle(model, run)
    else:
        run = _start_run(model)
    if stopping is None or run.signature != signature:
        run.least_objective = None  # nobody watched, or it was another objective
    run.signature = signature
    if budget is None:
        run.lambda_l0, run.log_multiplier = options.lambda_l0, None
    elif run.log_multiplier is None:
        run.lambda_l0 = 0.0  # until the first look: nobody knows yet what an open gate is worth
    by_hand = model._by_hand()

    def epochs(count: int) -> np.ndarray:
        now = options if schedule is None else schedule.options(model, run, options)
        if by_hand:
            return hooks.epochs(model, run, M, objective, now, count)
        return engine_epochs(model, run, matrix, objective, now, count)

    save = None if options.checkpoint is None else lambda: checkpoints.save(model, options.checkpoint)
    seen = M if by_hand else matrix
    reporter = CalibrationReporter(model, options, seen, objective)

    def without_noise() -> float:
        return deterministic_objective(model, seen, objective, options.lambda_l0, options.lambda_l2)

    ended = None if stopping is None else lambda: stopping.ends(run, without_noise)
    steer = None if budget is None else lambda: budget.steer(model, run, options.lr)
    run_chunks(
        run, options, epochs, reporter, "a smaller lr or other target_scales", save, steer, ended, schedule is not None
    )
    if budget is not None:
        budget.settle(model, run)
        if save is not None:
            save()  # once more: a file of the finished run has the records that were asked for


def _start_run(model) -> RunState:
    """Jitter first, then the seed of the gates: the order in which l0-python draws."""
    if model.log_weight_jitter_sd > 0:
        with torch.no_grad():
            model.log_weight += model._normal() * model.log_weight_jitter_sd
    model._run = RunState.new(model._draw_seed(), model._trained())
    return model._run


def engine_epochs(
    model: GatedModel, run: RunState, matrix: PackedMatrix, objective: Objective, options: FitOptions, count: int
) -> np.ndarray:
    """Metrics [count, 4] of that many epochs in compiled code."""
    trained = model._trained()
    metrics = ops.calibration_epochs_(
        *(trained["weight"], trained["alpha"], *(run.moments[name] for name in MOMENTS)),
        *(matrix.indptr, matrix.rows, matrix.values),
        *(objective.targets, objective.scales, objective.omega, objective.tolerances, None, run.seed),
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
        **options.engine(model),
    )
    return metrics.cpu().numpy()


def _signature(
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    budget: RecordBudget | None,
    schedule: Schedule | None,
) -> dict:
    """What a resumed run must have in common with its checkpoint, by the name that fit gives it."""
    fitted = {name: getattr(options, name) for name in ("lambda_l0", "lambda_l2", "lr", "loss_type")}
    target = None if budget is None else budget.target
    if budget is not None:
        fitted["lambda_l0"] = None  # the budget sets it
    fitted["schedule"] = None if schedule is None else "anneal"  # None: also in files from before there were any
    return {"M": matrix.sha256(), **objective.sha256(), "target_records": target, **fitted}
