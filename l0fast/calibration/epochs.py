"""The epochs of a run in compiled code: whole ones in the engine, or step by step with residuals in Python."""

import numpy as np

from .. import ops
from .chunks import FitOptions
from .constraints import UNCONSTRAINED, WeightConstraints
from .gated_model import GatedModel
from .matrix import PackedMatrix
from .objective import Objective
from .sharding.group import Alone, ShardGroup
from .state import MOMENTS, RunState
from .stepwise import step_epochs


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
        **options.engine(model),
    )
    return metrics.cpu().numpy()
