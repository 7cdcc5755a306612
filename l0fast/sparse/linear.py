"""Linear regression with L0 gates: the class of l0-python, on the calibration engine with rows as samples."""

import numpy as np
import torch
from torch import Tensor, nn

from .. import constants as c
from .. import ops
from ..calibration.gated_model import GatedModel
from ..calibration.hooks import overridden
from ..calibration.initial import check_gate_options
from ..calibration.matrix import PackedMatrix
from .training import DEFAULT_LAMBDA, fit_options, initial_log_alpha, squared_error, train

GATE_HOOKS = ("_sample_gates", "get_deterministic_gates", "_convert_sparse_to_torch")
FIT_HOOKS = (*GATE_HOOKS, "forward", "get_l0_penalty", "get_l2_penalty")
SELECTED = 0.01
"""A deterministic gate above this counts as open."""


class SparseL0Linear(GatedModel):
    """Linear model whose coefficients are mostly exactly 0: ``y_hat = X (weight z) + bias``, z Hard Concrete gates.

    :meth:`fit` minimises ``mean((y - y_hat)^2) + lambda sum_i P(z_i != 0) + lambda_l2 sum_i weight_i^2`` with Adam on
    weight, log_alpha and bias together. Weights have either sign. The bias has no gate and no penalty.

    Args:
        n_features: number of columns of X.
        fit_intercept: False for a model without bias.
        beta: temperature of the gates, above 0.
        gamma, zeta: ends of the stretched interval, gamma < 0 and zeta > 1.
        init_keep_prob: initial ``sigmoid(log_alpha)`` in [0, 1]: a number or [n_features]. N(0, 0.01) is added to
            log_alpha. Exactly 0 and 1 mean always closed and always open.
        device: where the parameters live.
        seed: governs every draw: log_alpha, the initial weights of each fit and all gates. None takes torch's global
            generator.

    Attributes:
        weight, log_alpha: parameters [n_features] float32; bias: parameter [1], or None. With log_alpha they are the
            only entries of the state_dict (as in l0-python).
        epoch: epochs done in the current run.
        history: dict of float64 arrays [epoch]: 'loss', 'data_loss' (the mean squared error of that epoch's draw),
            'expected_active', 'open_gates', 'lambda_l0'.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312); DESIGN 3.
    """

    def __init__(
        self,
        n_features: int,
        fit_intercept: bool = True,
        beta: float = c.BETA,
        gamma: float = c.GAMMA,
        zeta: float = c.ZETA,
        init_keep_prob: float = 0.5,
        device: str | torch.device = "cpu",
        seed: int | None = None,
    ):
        check_gate_options(n_features, beta, gamma, zeta)
        super().__init__(n_features, beta, gamma, zeta, device, seed)
        self.fit_intercept = fit_intercept
        log_alpha = initial_log_alpha(init_keep_prob, n_features, self.device)
        self.weight = nn.Parameter(torch.zeros(n_features, device=self.device))
        if fit_intercept:
            self.bias = nn.Parameter(torch.zeros(1, device=self.device))
        else:
            self.register_parameter("bias", None)
        self.log_alpha = nn.Parameter(log_alpha + 0.01 * self._normal())

    def _trained(self) -> dict[str, Tensor]:
        trained = {"weight": self.weight, "alpha": self.log_alpha}
        return trained if self.bias is None else {**trained, "bias": self.bias}

    def _engine_options(self) -> dict:
        return {"link": c.LINK_IDENTITY, **self._gate_options()}

    def _by_hand(self) -> bool:
        """Whether the epochs go through the methods, which a subclass has overridden."""
        return overridden(self, FIT_HOOKS)

    # -- predictions -------------------------------------------------------------------------------------------------

    def pack(self, X, *, fitting: bool = False) -> PackedMatrix:
        """X as resident compressed columns: packed once, and again only when its content has changed.

        fitting: see GatedModel.pack.

        Raises:
            TypeError, ValueError, MemoryError: see :func:`l0fast.calibration.matrix.pack`;
                X has no rows or not n_features columns.
        """
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) == 2:
            self._check_columns(shape)
            if shape[0] == 0:
                raise ValueError(f"X: expected at least one row, got shape {shape}")
        try:
            return super().pack(X, fitting=fitting)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            message = str(error)
            raise kind("X" + message[1:] if message.startswith("M: ") else message) from None

    def _check_columns(self, shape: tuple[int, ...]) -> None:
        if shape[1] != self.n_features:
            raise ValueError(f"X: expected {self.n_features} columns (n_features), got shape {shape}")

    def forward(self, X, deterministic: bool = False) -> Tensor:
        """Predictions [n_samples], differentiable in weight, log_alpha and bias; X itself gets no gradient.

        Args:
            X: matrix [n_samples, n_features], any format that :func:`l0fast.calibration.matrix.pack` takes: scipy
                sparse matrices and arrays, torch tensors of any layout, NumPy arrays. No rows give no predictions.
            deterministic: gates without noise.

        Raises:
            TypeError, ValueError: X is something else, has another number of columns, or a value is not finite.
        """
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) == 2 and shape[0] == 0:
            self._check_columns(shape)
            y = self.weight.new_zeros(0)
        elif overridden(self, GATE_HOOKS):
            y = self._forward_by_hand(X, deterministic)
        else:
            matrix = self.pack(X)
            seed = None if deterministic else self._draw_seed()
            columns = (matrix.indptr, matrix.rows, matrix.values, matrix.n_targets)
            y, _ = ops.gated_totals(self.weight, self.log_alpha, *columns, seed, **self._engine_options())
        return y if self.bias is None else y + self.bias

    def _forward_by_hand(self, X, deterministic: bool) -> Tensor:
        """X (weight z) with a subclass's methods, which as in l0-python do not convert what is a tensor already."""
        if not isinstance(X, Tensor):
            X = self._convert_sparse_to_torch(X)
        elif X.layout != torch.sparse_coo or X.dtype != self.weight.dtype:
            X = GatedModel._convert_sparse_to_torch(self, X)
        gates = self.get_deterministic_gates() if deterministic else self._sample_gates()
        return torch.sparse.mm(X, (self.weight * gates).unsqueeze(1)).squeeze(1)

    @property
    def _cached_X_torch(self) -> Tensor | None:
        """The matrix at hand as a torch COO tensor, made here: l0-python keeps it so, and its own tests look at it."""
        return None if self._matrices.held is None else GatedModel._convert_sparse_to_torch(self, self._matrices.held)

    def predict(self, X_sparse) -> Tensor:
        """Predictions [n_samples] with deterministic gates, without gradients: ``X get_coefficients() + bias``.

        See :meth:`forward` for X_sparse and what is raised.
        """
        with torch.no_grad():
            return self.forward(X_sparse, deterministic=True)

    # -- coefficients ------------------------------------------------------------------------------------------------

    def get_coefficients(self) -> Tensor:
        """Coefficients [n_features] of the deterministic model, without gradients: ``weight z``; most are exactly 0.

        The intercept is not among them: it is ``bias`` (None without one).
        """
        with torch.no_grad():
            return self.weight * self.get_deterministic_gates()

    def get_l2_penalty(self) -> Tensor:
        """Sum of squared weights before gates, a scalar: ``sum weight^2``."""
        return self.weight.square().sum()

    def get_sparsity(self) -> float:
        """Share of features whose deterministic gate is below 0.01, in [0, 1]."""
        with torch.no_grad():
            return (self.get_deterministic_gates() < SELECTED).float().mean().item()

    def get_selected_features(self, threshold: float = SELECTED) -> Tensor:
        """Indices [k] int64 of the features whose deterministic gate is above threshold, increasing.

        Raises:
            ValueError: threshold is not in [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a gate value in [0, 1], got {threshold}")
        with torch.no_grad():
            return (self.get_deterministic_gates() > threshold).nonzero().squeeze(1)

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X_sparse,
        y: Tensor | np.ndarray,
        lambda_reg: float = DEFAULT_LAMBDA,
        lr: float = 0.01,
        epochs: int = 1000,
        verbose: bool | str = False,
        verbose_freq: int = 100,
        *,
        lambda_l0: float | None = None,
        lambda_l2: float = 0.0,
        sample_weight=None,
        callback=None,
        resume: bool = False,
        warm_start: bool = False,
    ) -> "SparseL0Linear":
        """Fits the model with Adam, whole epochs at a time in compiled code.

        As in l0-python a fit begins with weights drawn anew from N(0, 0.1^2) and a bias of mean(y), and leaves the
        gates as they are.

        Args:
            X_sparse: matrix [n_samples, n_features], as :meth:`forward` takes it.
            y: numbers [n_samples] or [n_samples, 1], of any real dtype.
            lambda_reg: price of an open gate, at least 0.
            lr: Adam's step, at least 0.
            epochs: how many to run.
            verbose: True prints a line every ``verbose_freq`` epochs; "bar" shows a progress bar on stderr.
            verbose_freq: epochs between lines and between calls of ``callback``, at least 1.
            lambda_l0: another name of lambda_reg.
            lambda_l2: price of a squared weight before its gate, at least 0.
            sample_weight: [n_samples], at least 0: the mean of the squared errors, and that of y, is weighted by it.
            callback: called as ``callback(epoch, metrics)`` every ``verbose_freq`` epochs and after the last one,
                epoch counted from 1 and metrics a dict of 'loss', 'data_loss', 'expected_active', 'open_gates' (of
                the epoch's draw) and 'active' (gates above 0.01 without noise).
            resume: continue the model's run (Adam's moments, epoch, noise) for ``epochs`` more: chunks give the very
                bits of one run. Without a run to continue a new one starts.
            warm_start: start the new run from the present weights and bias.

        Returns:
            The model itself.

        Raises:
            TypeError, ValueError: bad input, by name, before anything has changed.
            MemoryError: the CUDA device has not enough free memory, before packing begins.
            FloatingPointError: the loss left the finite numbers; the parameters are those before that epoch.
            KeyboardInterrupt: within about half a second of Ctrl-C; the run can be resumed.
        """
        if resume and warm_start:
            raise ValueError("warm_start: expected at most one of resume and warm_start, got both")
        options = fit_options(lambda_reg, lambda_l0, lambda_l2, lr, epochs, verbose, verbose_freq, callback, resume)
        matrix = self.pack(X_sparse, fitting=True)
        objective = squared_error(y, sample_weight, matrix.n_targets, self.weight.device)
        train(self, X_sparse, matrix, objective, options, warm_start)
        return self
