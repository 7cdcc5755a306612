"""Calibration weights with L0 gates: the class of l0-python, on the native engine."""

import numpy as np
import torch
from torch import Tensor, nn

from .. import constants as c
from .. import ops
from . import hooks
from .fitting import FitMethods
from .gated_model import GatedModel
from .hooks import FIT_HOOKS, WEIGHT_HOOKS, overridden
from .initial import check_gate_options, initial_log_alpha, initial_log_weight
from .runs import RunMethods


class SparseCalibrationWeights(FitMethods, RunMethods, GatedModel):
    """Positive weights for records, most of them exactly 0, whose totals meet given targets.

    ``w_i = exp(log_weight_i) z_i`` with a Hard Concrete gate ``z_i`` (:func:`l0fast.ops.hard_concrete`). :meth:`fit`
    minimises ``sum_j omega_j rho((M w - y)_j / scale_j) + lambda_l0 sum_i P(z_i != 0) + lambda_l2 sum_i
    exp(log_weight_i)^2`` with Adam.

    Args:
        n_features: number of records n.
        beta: temperature of the gates, above 0. Below about 2.5 a ``init_keep_prob`` of exactly 0 or 1 is never left.
        gamma, zeta: ends of the stretched interval, gamma < 0 and zeta > 1.
        init_keep_prob: initial ``sigmoid(log_alpha)`` in [0, 1]: a number or [n]. Exactly 0 and 1 mean always closed
            and always open, in sampling and after training.
        init_weights: initial weights before gates, at least 0: a number, [n], or None for 1. 1e-8 is added, so that
            a weight of 0 has a logarithm.
        log_weight_jitter_sd: standard deviation of the noise added to log_weight when a run starts.
        log_alpha_jitter_sd: standard deviation of the noise added to log_alpha here.
        device: where the parameters live.
        use_gates: False for dense calibration, w = exp(log_weight).
        seed: governs every draw: both jitters and all gates. None takes torch's global generator.

    Attributes:
        log_weight, log_alpha: parameters [n] float32, the only entries of the state_dict (as in l0-python).
        epoch: epochs done in the current run.
        history: dict of float64 arrays [epoch]: 'loss', 'data_loss', 'expected_active', 'open_gates', 'lambda_l0'.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312); DESIGN 3.
    """

    def __init__(
        self,
        n_features: int,
        beta: float = c.BETA,
        gamma: float = c.GAMMA,
        zeta: float = c.ZETA,
        init_keep_prob: float | np.ndarray = 0.5,
        init_weights: float | np.ndarray | None = None,
        log_weight_jitter_sd: float = 0.0,
        log_alpha_jitter_sd: float = 0.01,
        device: str | torch.device = "cpu",
        use_gates: bool = True,
        seed: int | None = None,
    ):
        check_gate_options(n_features, beta, gamma, zeta, log_weight_jitter_sd, log_alpha_jitter_sd)
        super().__init__(n_features, beta, gamma, zeta, device, seed)
        self.log_weight_jitter_sd = log_weight_jitter_sd
        self.log_alpha_jitter_sd = log_alpha_jitter_sd
        self.use_gates = use_gates
        self.log_weight = nn.Parameter(initial_log_weight(init_weights, n_features, self.device))
        log_alpha = initial_log_alpha(init_keep_prob, n_features, self.device)
        if log_alpha_jitter_sd > 0:
            log_alpha += self._normal() * log_alpha_jitter_sd
        self.log_alpha = nn.Parameter(log_alpha)

    def _trained(self) -> dict[str, Tensor]:
        return {"weight": self.log_weight, "alpha": self.log_alpha}

    def _engine_options(self) -> dict:
        return {"link": c.LINK_EXP, "gates": self.use_gates, **self._gate_options()}

    def _by_hand(self) -> bool:
        """Whether the epochs go through the methods, which a subclass has overridden."""
        return overridden(self, FIT_HOOKS)

    # -- weights and totals ------------------------------------------------------------------------------------------

    def get_weights(self, deterministic: bool = False) -> Tensor:
        """Weights [n], at least 0: ``exp(log_weight) z``; z sampled, deterministic, or 1 without gates."""
        if not self.use_gates:
            return torch.exp(self.log_weight)
        return torch.exp(self.log_weight) * (self.get_deterministic_gates() if deterministic else self._sample_gates())

    def forward(self, M, deterministic: bool = False) -> Tensor:
        """Totals M w [n_targets], differentiable in log_weight and log_alpha.

        Args:
            M: matrix [n_targets, n_features], any format that :func:`l0fast.calibration.matrix.pack` takes.
            deterministic: gates without noise.
        """
        if overridden(self, WEIGHT_HOOKS):
            return hooks.totals(self, M, deterministic)
        matrix = self.pack(M)
        seed = None if deterministic or not self.use_gates else self._draw_seed()
        totals, _ = ops.gated_totals(
            *(self.log_weight, self.log_alpha, matrix.indptr, matrix.rows, matrix.values, matrix.n_targets, seed),
            **self._engine_options(),
        )
        return totals

    def predict(self, M) -> Tensor:
        """Totals M w [n_targets] with deterministic gates, without gradients. See :meth:`forward`."""
        with torch.no_grad():
            return self.forward(M, deterministic=True)

    # -- penalties and counts ----------------------------------------------------------------------------------------

    def get_l2_penalty(self) -> Tensor:
        """Sum of squared weights before gates, a scalar: ``sum exp(log_weight)^2``."""
        return torch.exp(self.log_weight).square().sum()

    def get_sparsity(self) -> float:
        """Share of records whose deterministic gate is exactly 0, in [0, 1]."""
        with torch.no_grad():
            return (self.get_deterministic_gates() == 0).float().mean().item()

    def get_active_weights(self) -> dict:
        """Records of positive deterministic weight: 'indices' int64 [k], 'values' [k], 'count' k."""
        with torch.no_grad():
            weights = self.get_weights(deterministic=True)
            active = weights > 0
            return {"indices": active.nonzero().squeeze(1), "values": weights[active], "count": int(active.sum())}
