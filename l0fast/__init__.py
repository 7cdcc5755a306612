"""Hard Concrete L0 gates and survey calibration for PyTorch, compiled. A drop-in replacement for l0-python."""

from importlib.metadata import PackageNotFoundError, version

from . import activity, neuron, pruning
from ._finite import check_finite
from .activity import L0Activation, collect_regularization_losses, l0_regularizer
from .calibration import SparseCalibrationWeights
from .compat import install_as_l0
from .distributions import HardConcrete
from .gates import FeatureGate, HybridGate, L0Gate, SampleGate
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
from .ops import (
    batch_gates,
    calibration_epochs_,
    calibration_step_,
    gated_totals,
    gated_weight,
    hard_concrete,
    l0_penalties,
    l0_penalty,
)
from .penalties import (
    PenaltyTracker,
    TemperatureScheduler,
    compute_l0_penalty,
    compute_l0l2_penalty,
    compute_l2_penalty,
    get_active_parameter_count,
    get_sparsity_stats,
    update_temperatures,
)
from .sparse import SparseL0Linear
from .wrap import L0Regularizer

try:
    __version__ = version("l0fast")
except PackageNotFoundError:  # built in place, not installed
    __version__ = "0+unknown"

__all__ = [
    "FeatureGate",
    "HardConcrete",
    "HybridGate",
    "L0Activation",
    "L0Conv1d",
    "L0Conv2d",
    "L0Conv3d",
    "L0ConvTranspose2d",
    "L0DepthwiseConv2d",
    "L0Embedding",
    "L0Gate",
    "L0Linear",
    "L0Regularizer",
    "PenaltyTracker",
    "SampleGate",
    "SparseCalibrationWeights",
    "SparseL0Linear",
    "SparseMLP",
    "TemperatureScheduler",
    "activity",
    "batch_gates",
    "calibration_epochs_",
    "calibration_step_",
    "check_finite",
    "collect_regularization_losses",
    "compute_l0_penalty",
    "compute_l0l2_penalty",
    "compute_l2_penalty",
    "gated_totals",
    "gated_weight",
    "get_active_parameter_count",
    "get_sparsity_stats",
    "hard_concrete",
    "install_as_l0",
    "l0_penalties",
    "l0_penalty",
    "l0_regularizer",
    "neuron",
    "prune_model",
    "pruning",
    "update_temperatures",
]
