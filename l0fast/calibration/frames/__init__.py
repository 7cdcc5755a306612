"""Calibration problems from data frames: targets in words instead of a matrix. Needs ``pip install 'l0fast[data]'``."""

from .calmar import calmar_margins
from .grammar import Condition, FilterError, parse_filter
from .populationsim import populationsim_controls
from .problem import CalibrationProblem
from .targets import Margins, Target

__all__ = [
    "CalibrationProblem",
    "Condition",
    "FilterError",
    "Margins",
    "Target",
    "calmar_margins",
    "parse_filter",
    "populationsim_controls",
]
