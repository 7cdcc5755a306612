"""Calibration of survey weights: few records, positive weights, totals that meet published targets."""

from .matrix import PackedMatrix, pack
from .model import SparseCalibrationWeights

__all__ = ["PackedMatrix", "SparseCalibrationWeights", "pack"]
