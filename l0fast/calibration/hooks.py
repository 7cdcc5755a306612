"""Subclasses written for l0-python override methods that its fit calls, and the engine calls no Python.

A model with such an override runs epoch by epoch through its methods, with autograd and torch.optim.Adam, as in l0.
"""

import numpy as np
import torch
from torch import Tensor

from .. import constants as c
from .. import reference
from .gated_model import GatedModel
from .objective import Objective
from .state import RunState

WEIGHT_HOOKS = ("get_weights", "_sample_gates", "get_deterministic_gates", "_convert_sparse_to_torch")
FIT_HOOKS = (*WEIGHT_HOOKS, "forward", "get_l0_penalty", "get_l2_penalty")


def overridden(model, names: tuple[str, ...]) -> bool:
    """Whether the model's class, or the model itself, has one of these methods of its own."""
    ours = next(cls for cls in type(model).__mro__ if GatedModel in cls.__bases__)
    return any(name in vars(model) or getattr(type(model), name) is not getattr(ours, name) for name in names)


def totals(model, M, deterministic: bool) -> Tensor:
    """M w [n_targets] with the weights that the model's methods give."""
    weights = model.get_weights(deterministic=deterministic)
    if overridden(model, ("_convert_sparse_to_torch",)):
        return torch.sparse.mm(model._convert_sparse_to_torch(M), weights.unsqueeze(1)).squeeze(1)
    matrix = model.pack(M)
    return reference.column_totals(weights, matrix.indptr, matrix.rows, matrix.values, matrix.n_targets)


def epochs(model, run: RunState, M, objective: Objective, options, count: int) -> np.ndarray:
    """The twin of ops.calibration_epochs_ for such a model: metrics [count, 4], the same stop at a loss not finite."""
    adam = _adam(model, run, options.lr)
    metrics = np.full((count, 4), np.nan)
    for k in range(count):
        estimates = model.forward(M, deterministic=False)
        data = objective.loss(estimates.double())
        metrics[k, 0] = data.item()
        if not np.isfinite(metrics[k, 0]):
            break
        penalty = model.get_l0_penalty()
        squares = model.get_l2_penalty() if options.lambda_l2 > 0 else penalty.new_zeros(())
        adam.zero_grad()
        (data + run.lambda_l0 * penalty + options.lambda_l2 * squares).backward()
        adam.step()
        # The methods hide the draw: the deterministic gates stand for the open ones.
        looked_at = (penalty, squares, model.get_deterministic_gates().count_nonzero())
        metrics[k, 1:] = torch.stack([x.detach().double() for x in looked_at]).cpu()  # one wait for the device
    adam.zero_grad()
    return metrics


def _adam(model, run: RunState, lr: float) -> torch.optim.Adam:
    """Adam on the model's parameters, its moments being the run's own tensors."""
    trained = model._trained()
    adam = torch.optim.Adam(trained.values(), lr, (c.ADAM_BETA1, c.ADAM_BETA2), c.ADAM_EPSILON)
    for name, parameter in trained.items():
        adam.state[parameter] = {
            "step": torch.tensor(float(run.epoch)),
            "exp_avg": run.moments[f"{name}_exp_avg"],
            "exp_avg_sq": run.moments[f"{name}_exp_avg_sq"],
        }
    return adam
