"""For api_table.py: how to build each public class of l0-python, and a call of each of its methods and functions.

Whatever is drawn at random is compared by type, dtype and shape; all else also by value.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy import sparse as sp
from torch import nn

N_ROWS, N_COLUMNS = 7, 12
EXAMPLES = torch.linspace(-1, 1, N_ROWS * N_COLUMNS).view(N_ROWS, N_COLUMNS)
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
MATRIX = sp.random(N_ROWS, N_COLUMNS, density=0.5, format="csr", random_state=np.random.default_rng(0))
TARGETS = MATRIX @ np.linspace(0.5, 1.5, N_COLUMNS)
NAMES = [f"feature {k}" for k in range(N_COLUMNS)]


@dataclass(frozen=True)
class Call:
    """A method or function, and what it gets. ``random``: its result is drawn, so its values are not compared."""

    name: str
    arguments: tuple = ()
    options: dict = field(default_factory=dict)
    random: bool = False


def call(name: str, *arguments, random: bool = False, **options) -> Call:
    return Call(name, arguments, options, random)


@dataclass(frozen=True)
class Case:
    """A class by module and name, the arguments of one object, and the calls on it."""

    module: str
    name: str
    arguments: tuple = ()
    options: dict = field(default_factory=dict)
    calls: tuple[Call, ...] = ()


LAYER_CALLS = (call("get_l0_penalty"), call("get_sparsity"))
L2_CALLS = (call("get_l2_penalty"), call("extra_repr"), call("reset_parameters", random=True))
GATE_CALLS = (
    call("get_gates"),
    call("apply_gates", EXAMPLES.T),
    call("apply_gates", EXAMPLES, dim=1),
    call("get_penalty"),
    call("get_active_indices"),
    call("get_active_indices", threshold=0.9),
)
FIT = {"lr": 0.05, "epochs": 5}

CASES = (
    Case(
        *("distributions", "HardConcrete", (N_COLUMNS, 4), {"temperature": 0.4, "init_mean": 0.7}),
        calls=(
            *(call("forward"), call("forward", (N_COLUMNS, 4, 3, 3)), call("get_penalty"), call("get_active_prob")),
            *(call("get_sparsity"), call("get_num_active"), call("extra_repr"), call("reset_parameters")),
            call("_deterministic_gates"),
            call("_sample_gates", random=True),
        ),
    ),
    Case(
        *("layers", "L0Linear", (N_COLUMNS, 5), {"init_sparsity": 0.3, "use_l2": True}),
        calls=(call("forward", EXAMPLES), *LAYER_CALLS, *L2_CALLS),
    ),
    Case(
        *("layers", "L0Conv2d", (3, 4, 3), {"padding": 1, "use_l2": True}),
        calls=(call("forward", IMAGES), *LAYER_CALLS, call("get_l2_penalty"), call("reset_parameters", random=True)),
    ),
    Case(
        *("layers", "L0Conv2d", (3, 4, (3, 1)), {"stride": 2, "bias": False, "structured": True}),
        calls=(call("forward", IMAGES), *LAYER_CALLS, call("get_l2_penalty"), call("reset_parameters", random=True)),
    ),
    Case("layers", "L0DepthwiseConv2d", (3, 3), calls=(call("forward", IMAGES), *LAYER_CALLS)),
    Case(
        *("layers", "SparseMLP", (N_COLUMNS, 6, 3), {"use_l2": True}),
        calls=(call("forward", EXAMPLES), call("get_l0_loss"), call("get_l2_loss"), call("get_sparsity_stats")),
    ),
    Case("gates", "L0Gate", (N_COLUMNS,), calls=GATE_CALLS),
    Case(
        *("gates", "SampleGate", (N_COLUMNS, 5)),
        calls=(
            *GATE_CALLS,
            call("select_samples", EXAMPLES.T),
            call("select_weighted_samples", EXAMPLES.T, torch.linspace(1, 2, N_COLUMNS)),
        ),
    ),
    Case(
        *("gates", "FeatureGate", (N_COLUMNS, 4)),
        calls=(
            *GATE_CALLS,
            call("select_features", EXAMPLES),
            call("select_features_with_names", EXAMPLES, NAMES),
            call("get_feature_importance"),
        ),
    ),
    Case(
        *("gates", "HybridGate", (N_COLUMNS,), {"target_items": 8}),
        calls=(call("select", EXAMPLES.T, random_seed=3), call("get_penalty")),
    ),
    Case(
        *("sparse", "SparseL0Linear", (N_COLUMNS,), {"seed": 1}),
        calls=(
            *(call("forward", MATRIX, deterministic=True), call("forward", MATRIX, random=True)),
            *(call("get_deterministic_gates"), call("get_l0_penalty"), call("get_sparsity")),
            *(call("get_selected_features"), call("get_selected_features", threshold=0.5), call("predict", MATRIX)),
            call("fit", MATRIX, TARGETS, lambda_reg=0.01, random=True, **FIT),
        ),
    ),
    Case(
        *("calibration", "SparseCalibrationWeights", (N_COLUMNS,), {"seed": 1}),
        calls=(
            *(call("forward", MATRIX, deterministic=True), call("forward", MATRIX, random=True)),
            *(call("get_weights", deterministic=True), call("get_weights", random=True)),
            *(call("get_deterministic_gates"), call("get_l0_penalty"), call("get_l2_penalty"), call("get_sparsity")),
            *(call("get_active_weights"), call("predict", MATRIX)),
            call("fit", MATRIX, TARGETS, lambda_l0=1e-4, loss_type="relative", random=True, **FIT),
        ),
    ),
    *(
        Case(
            *("penalties", "TemperatureScheduler", (1.5, 0.2, 10), {"schedule": schedule}),
            calls=tuple(call("get_temperature", epoch) for epoch in (0, 3, 10, 40)),
        )
        for schedule in ("linear", "exponential", "cosine")
    ),
    Case(
        *("penalties", "PenaltyTracker"),
        calls=(
            *(call("log", "loss", 2.0), call("log", "loss", 1.0), call("get_history", "loss")),
            *(call("get_stats", "loss"), call("get_stats", "nothing yet")),
            call("clear"),
        ),
    ),
)
"""Writing a CSV and drawing a figure are compared in the tracker's own tests: both end in a file."""


def mixed_model(package: ModuleType) -> nn.Module:
    """A model with each kind of layer, and layers that have no gates, in evaluation mode."""
    layers = package.layers
    torch.manual_seed(5)
    model = nn.Sequential(
        layers.L0Conv2d(3, 4, 3, structured=True, padding=1),
        layers.L0DepthwiseConv2d(4, 3, padding=1),
        layers.L0Conv2d(4, 2, 3, padding=1, use_l2=True),
        nn.Flatten(),
        nn.Linear(2 * 8 * 8, 6),
        layers.L0Linear(6, 3),
    )
    return model.eval()


FUNCTIONS: dict[str, Callable[[ModuleType, nn.Module], Any]] = {
    "layers.prune_model()": lambda package, model: package.layers.prune_model(model[2:], threshold=0.4),
    "penalties.compute_l0_penalty()": lambda package, model: package.penalties.compute_l0_penalty(model),
    "penalties.compute_l2_penalty()": lambda package, model: package.penalties.compute_l2_penalty(model[:2]),
    "penalties.compute_l2_penalty(gates per weight)": lambda package, model: package.penalties.compute_l2_penalty(
        model[2:]
    ),
    "penalties.compute_l0l2_penalty()": lambda package, model: package.penalties.compute_l0l2_penalty(
        model[:2], 0.1, l2_lambda=0.2
    ),
    "penalties.get_sparsity_stats()": lambda package, model: package.penalties.get_sparsity_stats(model[2:]),
    "penalties.get_sparsity_stats(L0DepthwiseConv2d)": lambda package, model: package.penalties.get_sparsity_stats(
        model[:2]
    ),
    "penalties.get_active_parameter_count()": lambda package, model: package.penalties.get_active_parameter_count(
        model
    ),
    "penalties.update_temperatures()": lambda package, model: (
        package.penalties.update_temperatures(model, 0.3),
        [module.temperature for module in model.modules() if hasattr(module, "temperature")],
    ),
}
"""The functions, each on what both packages can take and, by another name, on what makes a difference."""
