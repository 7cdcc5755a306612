"""Hard Concrete L0 gates and survey calibration for PyTorch, compiled. A drop-in replacement for l0-python."""

from importlib.metadata import PackageNotFoundError, version

from .calibration import SparseCalibrationWeights
from .distributions import HardConcrete
from .layers import (
    L0Conv1d,
    L0Conv2d,
    L0Conv3d,
    L0ConvTranspose2d,
    L0DepthwiseConv2d,
    L0Embedding,
    L0Linear,
    SparseMLP,
    prune_model,
)
from .ops import calibration_epochs_, gated_totals, hard_concrete, l0_penalty
from .sparse import SparseL0Linear

try:
    __version__ = version("l0fast")
except PackageNotFoundError:  # built in place, not installed
    __version__ = "0+unknown"

__all__ = [
    "HardConcrete",
    "L0Conv1d",
    "L0Conv2d",
    "L0Conv3d",
    "L0ConvTranspose2d",
    "L0DepthwiseConv2d",
    "L0Embedding",
    "L0Linear",
    "SparseCalibrationWeights",
    "SparseL0Linear",
    "SparseMLP",
    "calibration_epochs_",
    "gated_totals",
    "hard_concrete",
    "l0_penalty",
    "prune_model",
]
