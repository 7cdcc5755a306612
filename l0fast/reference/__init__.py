"""The specification in plain torch: what each op computes, with the names and arguments of l0fast/ops.

Any floating dtype, any device, ordinary autograd. It is the fallback where no kernel is at hand, the truth (in float64)
that kernels are compared with, and the place to read the formulas (DESIGN 3 and 4).
"""

from .calibration import adam_step, calibration_epochs_, calibration_step_, data_loss, restrict_
from .gates import (
    active_probability,
    arithmetic,
    batch_gates,
    hard_concrete,
    l0_penalties,
    l0_penalty,
    uniform_at,
)
from .weights import column_totals, gated_totals, gated_weight, linked

__all__ = [
    "active_probability",
    "adam_step",
    "arithmetic",
    "batch_gates",
    "calibration_epochs_",
    "calibration_step_",
    "column_totals",
    "data_loss",
    "gated_totals",
    "gated_weight",
    "hard_concrete",
    "l0_penalties",
    "l0_penalty",
    "linked",
    "restrict_",
    "uniform_at",
]
