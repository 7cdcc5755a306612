"""What a run carries from epoch to epoch besides the parameters."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

MOMENTS = ("weight_exp_avg", "weight_exp_avg_sq", "alpha_exp_avg", "alpha_exp_avg_sq")
"""Adam's moments, in the order that calibration_epochs_ takes them."""

HISTORY = ("loss", "data_loss", "expected_active", "open_gates")


@dataclass
class RunState:
    """Noise seed, Adam's moments, epochs done, and the metrics of each of them."""

    seed: Tensor
    """int64 [1]; epoch e draws from (seed, stream = e)."""
    moments: dict[str, Tensor]
    """MOMENTS, each [n_records]."""
    epoch: int = 0
    metrics: list[np.ndarray] = field(default_factory=list)
    """Chunks [epochs, 4] in the order of HISTORY."""
    signature: dict | None = None
    """Hashes and options that the run was made with, by name."""
    loaded_from: str | None = None
    """The checkpoint's path, until the first resume has compared the signature."""

    @classmethod
    def new(cls, seed: Tensor, like: Tensor) -> "RunState":
        return cls(seed, {name: torch.zeros_like(like, requires_grad=False) for name in MOMENTS})

    def history(self) -> dict[str, np.ndarray]:
        table = np.concatenate([np.empty((0, len(HISTORY))), *self.metrics])
        return {name: table[:, k].copy() for k, name in enumerate(HISTORY)}

    @staticmethod
    def empty_history() -> dict[str, np.ndarray]:
        return {name: np.empty(0) for name in HISTORY}
