"""Epochs whose residuals are computed in Python: for losses and totals that the engine does not know.

The passes over the matrix stay in compiled code (ops.calibration_step_); only vectors of n_targets come up here.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .. import ops
from .chunks import FitOptions
from .constraints import UNCONSTRAINED, WeightConstraints
from .gated_model import GatedModel
from .matrix import PackedMatrix
from .objective import Objective
from .state import MOMENTS, RunState


def step_epochs(
    model: GatedModel,
    run: RunState,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    count: int,
    constraints: WeightConstraints = UNCONSTRAINED,
    lambda_l1: float = 0.0,
    together: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """The twin of epochs.engine_epochs: metrics [count, 4], the same stop at a loss that is not finite.

    Args:
        together: adds up a float64 vector over the processes that share the records; None for one process. The
            model's ``first_index`` says which records are here, so that the noise does not depend on the sharing.
    """
    trained = model._trained()
    weight = trained["weight"]
    gate = torch.empty_like(weight, requires_grad=False)
    metrics = np.full((count, 4), np.nan)

    def step(slopes: Tensor | None, epoch: int) -> Tensor:
        """Totals of the next draw, then p, squares and open gates: one vector, so that it is added up in one go."""
        totals, sums = ops.calibration_step_(
            *(weight, trained["alpha"], *(run.moments[name] for name in MOMENTS), gate),
            *(matrix.indptr, matrix.rows, matrix.values, matrix.n_targets, slopes),
            *(constraints.anchor, constraints.low, constraints.high, run.seed),
            epoch=epoch,
            lambda_l0=run.lambda_l0,
            lambda_l2=options.lambda_l2,
            lambda_l1=lambda_l1,
            lr=options.lr,
            **options.engine(model),
        )
        both = torch.cat([totals, sums])
        return both if together is None else together(both)

    drawn = step(None, run.epoch)
    for k in range(count):
        data, slopes = objective.evaluate(drawn[:-3])
        metrics[k, 0], metrics[k, 3] = float(data), float(drawn[-1])
        if not np.isfinite(metrics[k, 0]):
            metrics[k, 3] = np.nan
            break
        drawn = step(slopes, run.epoch + k)
        metrics[k, 1:3] = drawn[-3:-1].cpu().numpy()
    return metrics
