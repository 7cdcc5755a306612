"""Calibration weights with L0 gates: the class of l0-python, on the native engine."""

import numpy as np
import torch
from torch import Tensor, nn

from .. import constants as c
from .. import ops
from . import hooks
from .budget import DEFAULT_LAMBDA_L0, checked_budget, gate_price
from .chunks import FitOptions
from .gated_model import GatedModel
from .hooks import FIT_HOOKS, WEIGHT_HOOKS, overridden
from .initial import check_gate_options, initial_log_alpha, initial_log_weight
from .objective import build_objective
from .refit import check_refit, refit_weights
from .runs import RunMethods
from .stopping import checked_stopping
from .trainer import train


class SparseCalibrationWeights(RunMethods, GatedModel):
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

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        M,
        y,
        lambda_l0: float = DEFAULT_LAMBDA_L0,
        lambda_l2: float = 0.0,
        lr: float = 0.01,
        epochs: int = 1000,
        loss_type: str = "mse",
        verbose: bool | str = False,
        verbose_freq: int = 100,
        target_groups=None,
        normalize_groups: bool = True,
        group_multipliers: dict | None = None,
        *,
        target_weights=None,
        target_scales=None,
        target_tolerances=None,
        loss_cap: float = 1.0,
        callback=None,
        resume: bool = False,
        checkpoint=None,
        checkpoint_freq: int = 100,
        target_records: int | None = None,
        exact: bool = False,
        lambda_share: float | None = None,
        refit: bool = False,
        tol: float | None = None,
        patience: int | None = None,
    ) -> "SparseCalibrationWeights":
        """Fits the weights with Adam, whole epochs at a time in compiled code.

        Args:
            M: matrix [n_targets, n_features], any format that :func:`l0fast.calibration.matrix.pack` takes.
            y: targets [n_targets].
            lambda_l0: price of an open gate, at least 0.
            lambda_l2: price of a squared weight, at least 0.
            lr: Adam's step, at least 0.
            epochs: how many to run.
            loss_type: 'mse' (x = M w - y, x^2), 'relative' (x = (M w - y) / (y + 1), x^2), 'relative_epsilon'
                (x = (M w - y) / max(|y|, 1), max(|x| - tolerance, 0)^2) or 'capped_mape' (the same x, min(|x|, cap),
                weights normalised to sum 1).
            verbose: True prints a line every ``verbose_freq`` epochs; "bar" shows a progress bar on stderr.
            verbose_freq: epochs between lines and between calls of ``callback``, at least 1.
            target_groups: group of each target [n_targets]; None for no groups.
            normalize_groups: divide each target's loss by the size of its group.
            group_multipliers: factor for each group named, after the normalisation.
            target_weights: factor of each target's loss, at least 0: a number or [n_targets].
            target_scales: what a target's error is divided by, not 0, instead of the loss type's own scale.
            target_tolerances: for 'relative_epsilon', at least 0, in units of x.
            loss_cap: for 'capped_mape', above 0: an error beyond it costs no more and has no gradient.
            callback: called as ``callback(epoch, metrics)`` every ``verbose_freq`` epochs and after the last one,
                epoch counted from 1 and metrics a dict of 'loss', 'data_loss', 'expected_active', 'open_gates' (of
                the epoch's draw), 'active', 'mean_error', 'max_error' (of the deterministic weights; errors are
                |y - M w| / |y + 1|).
            resume: continue the model's run (Adam's moments, epoch, noise) for ``epochs`` more: chunks give the very
                bits of one run. The default starts a new run from the present parameters.
            checkpoint: file to save to every ``checkpoint_freq`` epochs, at the end and when interrupted.
            checkpoint_freq: epochs between checkpoints, at least 1.
            target_records: how many records to end with, in [1, n], within 1 % or one record, instead of lambda_l0: the
                price of a gate is then steered (:mod:`l0fast.calibration.budget`). 600 epochs are enough for most; a
                run that misses by more than 5 % warns, and ends with that many all the same.
            exact: end with exactly target_records, the most probable ones.
            lambda_share: lambda_l0 n, instead of lambda_l0: what all n records cost, so that a value means the same
                for a sample and for the whole.
            refit: :meth:`refit` the weights afterwards, with these epochs, lr, lambda_l2 and loss. A checkpoint stays
                that of the run before it.
            tol: end the run early, when ``patience`` epochs have not lowered the objective of the weights without noise
                (:mod:`l0fast.calibration.stopping`) by more than this share of it, in [0, 1); 1e-3 is a start. None
                runs all epochs. :attr:`stopped` tells. Such a run stays ended when resumed with the same two; without
                tol or with more patience it goes on.
            patience: epochs, at least 1 (looked at every 10th); None for 50.

        Returns:
            The model itself.

        Raises:
            TypeError, ValueError: bad input, by name, before anything has changed; also more than one of lambda_l0,
                lambda_share and target_records.
            MemoryError: the CUDA device has not enough free memory, before packing begins.
            FloatingPointError: the loss left the finite numbers; the parameters are those before that epoch.
            KeyboardInterrupt: within about half a second of Ctrl-C; the run can be resumed.
        """
        price = gate_price(self.n_features, lambda_l0, lambda_share, target_records)
        options = FitOptions(
            *(price, lambda_l2, lr, epochs, loss_type, verbose, verbose_freq),
            *(callback, resume, checkpoint, checkpoint_freq),
        )
        budget = checked_budget(self, target_records, exact)
        stopping = checked_stopping(tol, patience, target_records)
        check_refit(self, refit)
        matrix = self.pack(M, fitting=True)
        objective = build_objective(
            *(y, matrix.n_targets, loss_type),
            target_groups=target_groups,
            normalize_groups=normalize_groups,
            group_multipliers=group_multipliers,
            target_weights=target_weights,
            target_scales=target_scales,
            target_tolerances=target_tolerances,
            loss_cap=loss_cap,
            device=self.log_weight.device,
        )
        train(self, M, matrix, objective, options, budget, stopping)
        if refit:
            refit_weights(self, matrix, objective, options)
        return self
