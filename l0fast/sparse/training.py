"""What a fit of SparseL0Linear needs: its options, its objective, its start and its lines."""

import math
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from .. import constants as c
from ..calibration import hooks
from ..calibration.chunks import FitOptions, run_chunks
from ..calibration.epochs import engine_epochs
from ..calibration.initial import FROZEN
from ..calibration.initial import initial_log_alpha as log_alpha_of
from ..calibration.matrix import PackedMatrix
from ..calibration.objective import Objective, finite_vector
from ..calibration.progress import Reporter
from ..calibration.state import RunState, check_parameters

WEIGHT_SD = 0.1
"""Standard deviation of the weights that a fit starts from."""


class _Default(float):
    """A number that knows that nobody passed it: two names of one argument must not both be given."""


DEFAULT_LAMBDA = _Default(0.01)


def fit_options(lambda_reg, lambda_l0, lambda_l2, lr, epochs, verbose, verbose_freq, callback, resume) -> FitOptions:
    """Raises TypeError or ValueError for the first argument that is out of range."""
    if lambda_l0 is None:
        name, price = "lambda_reg", lambda_reg
    elif isinstance(lambda_reg, _Default):
        name, price = "lambda_l0", lambda_l0
    else:
        raise ValueError(
            f"lambda_l0: expected one of lambda_reg and lambda_l0, two names of one argument, got both "
            f"({lambda_reg} and {lambda_l0})"
        )
    if not (math.isfinite(price) and price >= 0):
        raise ValueError(f"{name}: expected a finite non-negative number, got {price}")
    return FitOptions(
        *(float(price), lambda_l2, lr, epochs, "mse", verbose, verbose_freq, callback, resume),
        checkpoint=None,
        checkpoint_freq=1,
    )


def initial_log_alpha(init_keep_prob, n_features: int, device: torch.device) -> Tensor:
    """log(p / (1 - p)) [n_features]. Of one number: with l0-python's roundings, so that a seed gives its bits."""
    if isinstance(init_keep_prob, Real) and 0 < init_keep_prob < 1:
        odds = torch.tensor(init_keep_prob / (1 - init_keep_prob), dtype=torch.float32)
        return odds.log().clamp(-FROZEN, FROZEN).expand(n_features).to(device)
    return log_alpha_of(init_keep_prob, n_features, device)


def squared_error(y, sample_weight, n_samples: int, device: torch.device) -> Objective:
    """The mean of the squared errors as the engine's objective, weighted by sample_weight if given.

    Raises:
        TypeError, ValueError: y or sample_weight is of another shape, not finite, or (sample_weight) negative or all 0.
    """
    if tuple(getattr(y, "shape", ())) == (n_samples, 1):  # one column: not n x n differences
        y = y[:, 0] if isinstance(y, Tensor) else np.asarray(y)[:, 0]
    targets = finite_vector("y", y, n_samples, item="row of X")
    if sample_weight is None:
        omega = np.full(n_samples, 1 / n_samples)
    else:
        omega = finite_vector("sample_weight", sample_weight, n_samples, item="row of X")
        if (bad := np.flatnonzero(omega < 0)).size:
            raise ValueError(f"sample_weight: expected non-negative weights, got {omega[bad[0]]} at row {bad[0]}")
        if not omega.any():
            raise ValueError("sample_weight: expected at least one positive weight, got all 0")
        omega = omega / omega.max()  # first: the sum of huge weights may overflow
        omega /= omega.sum()
    targets, scales, omega = (torch.from_numpy(x).to(device) for x in (targets, np.ones(n_samples), omega))
    return Objective(c.RHO_SQUARE, math.inf, targets, scales, omega, tolerances=None, groups=None)


def train(model, X, matrix: PackedMatrix, objective: Objective, options: FitOptions, warm_start: bool) -> None:
    """Runs options.epochs epochs on the model's parameters; see SparseL0Linear.fit."""
    run = model._run if options.resume else None
    drawn = run is None and not warm_start
    kept = {} if drawn else {"weight": model.weight}
    if not drawn and model.bias is not None:
        kept["bias"] = model.bias
    check_parameters(log_alpha=model.log_alpha, **kept)
    by_hand = model._by_hand()
    X_torch = model._convert_sparse_to_torch(X) if by_hand else None
    if drawn:
        _draw_parameters(model, objective)
    if run is None:
        run = model._run = RunState.new(model._draw_seed(), model._trained())
    run.lambda_l0 = options.lambda_l0

    def epochs(count: int) -> np.ndarray:
        if by_hand:
            return hooks.epochs(model, run, X_torch, objective, options, count)
        return engine_epochs(model, run, matrix, objective, options, count)

    run_chunks(run, options, epochs, LinearReporter(model, options), "a smaller lr or rescaled columns of X")


def _draw_parameters(model, objective: Objective) -> None:
    with torch.no_grad():
        drawn = torch.empty_like(model.weight, device=model._draws_on())
        model.weight.copy_(drawn.normal_(0, WEIGHT_SD, generator=model._generator))
        if model.bias is not None:
            model.bias.fill_((objective.omega * objective.targets).sum())


class LinearReporter(Reporter):
    def metrics(self) -> dict:
        return {**super().metrics(), "active": len(self.model.get_selected_features())}

    def line(self, metrics: dict) -> str:
        """In l0-python's words and numbers."""
        return (
            f"Epoch {self.model.epoch:4d}: loss={metrics['loss']:.4f}, mse={metrics['data_loss']:.4f}, "
            f"l0={metrics['expected_active']:.2f}, active={metrics['active']}"
        )

    def postfix(self, metrics: dict) -> dict:
        return {"mse": f"{metrics['data_loss']:.4g}", "active": metrics["active"]}
