"""What a run carries from epoch to epoch besides the parameters."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

MOMENTS = ("weight_exp_avg", "weight_exp_avg_sq", "alpha_exp_avg", "alpha_exp_avg_sq")
"""Adam's moments, in the order that calibration_epochs_ takes them."""

HISTORY = ("loss", "data_loss", "expected_active", "open_gates", "lambda_l0")


@dataclass
class RunState:
    """Noise seed, Adam's moments, epochs done, and the metrics of each of them."""

    seed: Tensor
    """int64 [1]; epoch e draws from (seed, stream = e)."""
    moments: dict[str, Tensor]
    """MOMENTS, each [n_records]; a model with a bias has two more, [1]."""
    epoch: int = 0
    metrics: list[np.ndarray] = field(default_factory=list)
    """Chunks [epochs, 5] in the order of HISTORY."""
    lambda_l0: float = 0.0
    """Price of an open gate in the epochs to come: the option's, or what a record budget has made of it."""
    log_multiplier: float | None = None
    """Logarithm of a record budget's multiplier, kept while the price itself is 0; None before its first update."""
    unsettled: tuple[Tensor, Tensor] | None = None
    """Indices int64 [m] and log_alpha [m] of the gates that a record budget moved at the end: a resumed run takes
    them back, so that it goes on as if it had never stopped."""
    inclusion: Tensor | None = None
    """Probability float64 [n] of each record to be in the sample that a budget drew at the end; None without one."""
    unprojected: tuple[Tensor, Tensor] | None = None
    """log_weight and log_alpha [n] from before bounds and mass were made exact at the end: taken back likewise."""
    least_objective: float | None = None
    """Deterministic objective when it last fell by enough, for early stopping; None while nobody watches it."""
    least_epoch: int = 0
    """Epochs done then."""
    stopped: bool = False
    """Whether early stopping ended the run."""
    refitted: bool = False
    """Whether the weights were refitted since; such a run has ended."""
    signature: dict | None = None
    """Hashes and options that the run was made with, by name."""
    loaded_from: str | None = None
    """The checkpoint's path, until the first resume has compared the signature."""

    @classmethod
    def new(cls, seed: Tensor, trained: dict[str, Tensor]) -> "RunState":
        """Before its first epoch; trained as GatedModel._trained gives it."""
        moments = {}
        for name, like in trained.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                moments[f"{name}_{moment}"] = torch.zeros_like(like, requires_grad=False)
        return cls(seed, moments)

    def history(self) -> dict[str, np.ndarray]:
        table = np.concatenate([np.empty((0, len(HISTORY))), *self.metrics])
        return {name: table[:, k].copy() for k, name in enumerate(HISTORY)}

    @staticmethod
    def empty_history() -> dict[str, np.ndarray]:
        return {name: np.empty(0) for name in HISTORY}


def check_parameters(**parameters: Tensor) -> None:
    """Raises ValueError for the first that is not finite, by name.

    An infinite log_alpha is a gate that is always open or closed, as l0-python's checkpoints may hold it.
    """
    for name, parameter in parameters.items():
        values = parameter.detach()
        bad = torch.isnan(values) if name == "log_alpha" else ~torch.isfinite(values)
        if bad.any():
            first = int(bad.nonzero()[0])
            raise ValueError(f"{name}: expected finite parameters, got {values[first].item()} at record {first}")
