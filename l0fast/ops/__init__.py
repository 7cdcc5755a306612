"""The fused ops, one file each. A tensor that no kernel handles goes through l0fast/reference.py instead."""

from ._common import check_gate_options
from .batch_gates import batch_gates
from .calibration_epochs import calibration_epochs_
from .calibration_step import calibration_step_
from .gated_totals import gated_totals
from .gated_weight import check_gated_weight, gated_weight
from .hard_concrete import hard_concrete
from .l0_penalties import l0_penalties
from .l0_penalty import l0_penalty

__all__ = [
    "batch_gates",
    "calibration_epochs_",
    "calibration_step_",
    "check_gate_options",
    "check_gated_weight",
    "gated_totals",
    "gated_weight",
    "hard_concrete",
    "l0_penalties",
    "l0_penalty",
]
