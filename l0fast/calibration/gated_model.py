"""What the models on the calibration engine share: gates, their noise, the packed matrix and the run."""

import numpy as np
import torch
from torch import Tensor, nn

from .. import constants as c
from .. import ops
from .matrix import MatrixCache, PackedMatrix
from .sharding.bounds import Shard
from .state import RunState


class GatedModel(nn.Module):
    """Base of the models with one gate for each column of a sparse matrix. A subclass sets the parameter log_alpha."""

    LOG_ALPHA_BOUND: float = c.LOG_ALPHA_BOUND
    shard: Shard | None = None
    """Which records of a larger problem these are; None for all of them."""

    def __init__(self, n_features: int, beta: float, gamma: float, zeta: float, device, seed: int | None):
        super().__init__()
        self.n_features = n_features
        self.beta = beta
        self.gamma = gamma
        self.zeta = zeta
        self.device = torch.device(device)
        self.seed = seed
        self._generator = None
        if seed is not None:
            self._generator = torch.Generator(device=self.device)
            self._generator.manual_seed(int(seed))
        self._matrices = MatrixCache()
        self._run: RunState | None = None

    def __setstate__(self, state: dict) -> None:
        """Also takes what l0-python has pickled; the matrix that it had cached is left behind."""
        state = {name: value for name, value in state.items() if not name.startswith(("_cached_M_", "_cached_X_"))}
        super().__setstate__({"_matrices": MatrixCache(), "_run": None, **state})

    # -- what the engine trains ---------------------------------------------------------------------------------------

    def _trained(self) -> dict[str, Tensor]:
        """'weight' and 'alpha' [n_features], and 'bias' [1] if there is one; the moments in RunState have these names.

        The weight is the engine's parameter: under LINK_EXP the logarithm of the weight.
        """
        raise NotImplementedError

    def _engine_options(self) -> dict:
        """Keyword arguments of ops.calibration_epochs_ and ops.gated_totals that the model decides."""
        raise NotImplementedError

    def _apply(self, fn, recurse=True):
        """The run goes where the parameters go: model.to("cuda") between two fits, too."""
        super()._apply(fn, recurse)
        self.device = self.log_alpha.device
        if self._run is not None:
            self._run.seed = fn(self._run.seed)
            self._run.moments = {name: fn(moment) for name, moment in self._run.moments.items()}
        return self

    # -- draws --------------------------------------------------------------------------------------------------------

    def _draws_on(self) -> torch.device:
        """A generator stays on the device that the model was made on."""
        return self.device if self._generator is None else self._generator.device

    def _normal(self) -> Tensor:
        """[n_features]; of a shard, its part of what one process would draw for all records."""
        n, part = (self.n_features, slice(None)) if self.shard is None else (self.shard.n_total, self.shard.slice)
        return torch.randn(n, generator=self._generator, device=self._draws_on())[part].to(self.device)

    def _draw_seed(self) -> Tensor:
        """A fresh noise seed from the model's generator, or from torch's global one."""
        seed = torch.empty(1, dtype=torch.int64, device=self._draws_on())
        return seed.random_(generator=self._generator).to(self.device)

    def _first_index(self) -> int:
        """Noise is drawn by the record's number in the whole problem."""
        return 0 if self.shard is None else self.shard.first

    # -- gates --------------------------------------------------------------------------------------------------------

    def _gate_options(self) -> dict:
        return {"temperature": self.beta, "gamma": self.gamma, "zeta": self.zeta, "bound": self.LOG_ALPHA_BOUND}

    def _sample_gates(self) -> Tensor:
        """Gates [n] with fresh noise."""
        return ops.hard_concrete(
            self.log_alpha, self._draw_seed(), first_index=self._first_index(), **self._gate_options()
        )

    def get_deterministic_gates(self) -> Tensor:
        """Gates [n] without noise, in [0, 1]: ``clamp(sigmoid(log_alpha / beta) (zeta - gamma) + gamma, 0, 1)``."""
        return ops.hard_concrete(self.log_alpha, **self._gate_options())

    def get_l0_penalty(self) -> Tensor:
        """Expected number of open gates, a scalar in [0, n]: see :func:`l0fast.ops.l0_penalty`."""
        return ops.l0_penalty(self.log_alpha, **self._gate_options())

    # -- matrix -------------------------------------------------------------------------------------------------------

    def pack(self, M, *, fitting: bool = False) -> PackedMatrix:
        """The matrix as resident compressed columns: packed once, and again only when its content has changed.

        Args:
            M: as :func:`l0fast.calibration.matrix.pack` takes it.
            fitting: ask whether a CUDA device has room for a whole fit, before packing; else only for the matrix.

        Raises:
            TypeError, ValueError, MemoryError: see :func:`l0fast.calibration.matrix.pack`; or it has not n_features
                columns.
        """
        matrix = self._matrices.get(M, self.log_alpha.dtype, self.log_alpha.device, fitting)
        if matrix.n_records != self.n_features:
            raise ValueError(f"M: expected {self.n_features} columns (n_features), got shape {tuple(matrix.shape)}")
        return matrix

    def _convert_sparse_to_torch(self, M) -> Tensor:
        """M as a torch COO tensor of the parameters' dtype: for subclasses; l0fast itself multiplies packed columns."""
        matrix = self.pack(M).to_scipy().tocoo()
        indices = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
        values = torch.from_numpy(matrix.data).to(self.log_alpha.dtype)
        return torch.sparse_coo_tensor(indices, values, matrix.shape, check_invariants=False).to(self.log_alpha.device)

    # -- the run ------------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return 0 if self._run is None else self._run.epoch

    @property
    def history(self) -> dict[str, np.ndarray]:
        return RunState.empty_history() if self._run is None else self._run.history()
