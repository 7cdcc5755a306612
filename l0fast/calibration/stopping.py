"""Early stopping: a run ends where its objective, taken without noise, has stopped falling.

The loss of an epoch is that of its draw of gates and goes up and down with it. What is watched is therefore the
objective of the deterministic weights, which users get:

    sum_j omega_j rho((M w - y)_j / scale_j) + lambda_l0 sum_i P(z_i != 0) + lambda_l2 sum_i exp(log_weight_i)^2
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import as_real, as_size
from .objective import Objective
from .state import RunState

CHECK_EVERY = 20
"""Epochs between two looks, a fixed number, so that a run split into chunks ends where one run does. A look costs one
to two epochs: a forward pass of its own, while the engine shares one read of the matrix between two passes."""
DEFAULT_PATIENCE = 60


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a run when ``patience`` epochs have not lowered the objective by more than the share ``tol``."""

    tol: float
    patience: int

    def ends(self, run: RunState, value: Callable[[], float]) -> bool:
        """Looks at the objective if it is time to, and says whether the run is over.

        Small falls add up: the objective is compared with the last one whose fall counted, not with the last one.

        Args:
            run: takes note of a fall.
            value: the objective after run.epoch epochs.
        """
        if run.epoch == 0 or run.epoch % CHECK_EVERY:  # the start is not compared: noise may cost much at first
            return False
        objective = value()
        if math.isfinite(objective) and (
            run.least_objective is None or objective < run.least_objective * (1 - self.tol)
        ):
            run.least_objective, run.least_epoch = objective, run.epoch
        return run.least_objective is not None and run.epoch - run.least_epoch >= self.patience


def checked_stopping(tol, patience, target_records) -> EarlyStopping | None:
    """The rule of a fit, None for none.

    Raises:
        TypeError, ValueError: by name; also with target_records, whose changing price moves the objective.
    """
    if patience is not None:
        patience = as_size("patience", patience)
        if tol is None:
            raise ValueError("patience: expected tol with it, got None")
    if tol is None:
        return None
    tol = as_real("tol", tol)
    if not 0 <= tol < 1:
        raise ValueError(f"tol: expected a share in [0, 1), got {tol}")
    if target_records is not None:
        raise ValueError("tol: expected no target_records with it; a budget's price changes what is minimised")
    return EarlyStopping(tol, DEFAULT_PATIENCE if patience is None else patience)


def deterministic_objective(
    model, M, objective: Objective, lambda_l0: float, lambda_l2: float, anchor: Tensor | None, group
) -> float:
    """The formula above, of the model's weights without noise, the same number in all processes of the group.

    Args:
        M: a PackedMatrix, or what the model's own methods take.
        anchor: of lambda_l2, [n] or None.
    """
    with torch.no_grad():
        squares = torch.zeros(())
        if lambda_l2 > 0:
            ratios = None if anchor is None else torch.exp(model.log_weight) / anchor
            squares = model.get_l2_penalty() if ratios is None else ratios.square().sum()
        totals = model.predict(M).double()
        sums = torch.stack([model.get_l0_penalty().double(), squares.double().to(totals.device)])
        both = torch.cat([totals, sums])
        if group.sharded:
            both = group.together(both)
        penalties = lambda_l0 * float(both[-2]) + lambda_l2 * float(both[-1])
        return group.of_first(float(objective.loss(both[:-2])) + penalties)
