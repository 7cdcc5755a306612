"""Hard Concrete L0 gates and survey calibration for PyTorch, compiled. A drop-in replacement for l0-python."""

from importlib.metadata import PackageNotFoundError, version

from .calibration import SparseCalibrationWeights
from .ops import calibration_epochs_, gated_totals, hard_concrete, l0_penalty

try:
    __version__ = version("l0fast")
except PackageNotFoundError:  # built in place, not installed
    __version__ = "0+unknown"

__all__ = [
    "SparseCalibrationWeights",
    "calibration_epochs_",
    "gated_totals",
    "hard_concrete",
    "l0_penalty",
]
