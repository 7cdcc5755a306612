"""Calibration of survey weights: few records, positive weights, totals that meet published targets."""

from .frames import CalibrationProblem
from .integerize import integerize
from .matrix import PackedMatrix, pack
from .model import SparseCalibrationWeights

__all__ = ["CalibrationProblem", "PackedMatrix", "SparseCalibrationWeights", "integerize", "pack"]
