"""Calibration of survey weights: few records, positive weights, totals that meet published targets."""

from .frames import CalibrationProblem
from .hierarchy import Hierarchy
from .holdout import Holdout
from .integerize import integerize
from .matrix import PackedMatrix, pack
from .model import SparseCalibrationWeights

__all__ = [
    "CalibrationProblem",
    "Hierarchy",
    "Holdout",
    "PackedMatrix",
    "SparseCalibrationWeights",
    "integerize",
    "pack",
]
