"""Penalties and counts of whole models, and the schedules and records of a training run: l0-python's l0.penalties."""

from collections.abc import Iterable
from itertools import chain
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from .. import _linked, ops
from .._modules import checked_model
from ..layers._base import GatedLayer
from ..layers.depthwise import L0DepthwiseConv2d
from ..wrap import L0Regularizer
from .gated_modules import named_gated_modules, split_penalties
from .temperature import TemperatureScheduler, update_temperatures
from .tracker import PenaltyTracker

__all__ = [
    "PenaltyTracker",
    "TemperatureScheduler",
    "compute_l0_penalty",
    "compute_l0l2_penalty",
    "compute_l2_penalty",
    "get_active_parameter_count",
    "get_sparsity_stats",
    "update_temperatures",
]

GATE_PARAMETERS = {"qz_logits", "log_alpha"}
"""The names of gate parameters: HardConcrete's, and that of the models with one vector of gates."""


def compute_l0_penalty(model: nn.Module) -> Tensor:
    """Expected number of open gates of the model: the sum of P(z != 0) over its gates, in one launch.

    Every module that has ``get_l0_penalty`` counts, wherever it lies in the model; a module registered twice counts
    once, gates that two layers share count for each. Layers with plain Hard Concrete gates are summed in one call of
    :func:`l0fast.ops.l0_penalties` for each device and dtype; all others (your own classes, overridden methods, other
    dtypes) are asked through their method. Where such a method has itself read the gates of modules below it, those
    are not counted again. Gates without ``get_l0_penalty`` (:class:`l0fast.HardConcrete`, :class:`l0fast.L0Gate`) are
    not part of it, as in l0-python: add their ``get_penalty()``.

    Args:
        model: any module, also one wrapped by DataParallel, DistributedDataParallel or torch.compile.

    Returns:
        A scalar on the device of the model's first parameter, differentiable: float64 if a penalty is, else float32.
        0 where there are no gates.

    Raises:
        TypeError: model is no module, or a ``get_l0_penalty`` returns no number.
        ValueError: a ``get_l0_penalty`` returns more than one number.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), equation 12.
    """
    layers, answers = split_penalties(checked_model(model))
    penalties = [_one_number(module, value) for module, value in answers]
    penalties += _group_penalties(layers)
    return _total(penalties, _device(model), any(p.dtype == torch.float64 for p in penalties))


def _group_penalties(layers: Iterable[GatedLayer]) -> list[Tensor]:
    """A sum for each kind of gates. Those with a link to a backward pass to come have theirs in a sum of their own."""
    groups: dict[tuple, list] = {}
    for layer in layers:
        log_alpha, options, link = layer.gates.qz_logits, layer.gates._gate_options(), layer.gates.penalty_link()
        gate = (log_alpha, options["temperature"], options["gamma"], options["zeta"])
        key = (log_alpha.device, log_alpha.dtype, options["bound"], link is not None)
        groups.setdefault(key, []).append((gate, link))
    return [_group_penalty(members, bound, linked) for (_, _, bound, linked), members in groups.items()]


def _group_penalty(members: list[tuple], bound: float, linked: bool) -> Tensor:
    arguments = [list(column) for column in zip(*(gate for gate, _ in members), strict=True)]
    if not linked:
        return ops.l0_penalties(*arguments, bound)
    with torch.no_grad():
        value = ops.l0_penalties(*arguments, bound)
    return _linked.penalty(value, *(link for _, link in members))


def _one_number(module: nn.Module, value) -> Tensor:
    where = f"{type(module).__name__}.get_l0_penalty"
    if not isinstance(value, Tensor | Real):
        raise TypeError(f"{where}: expected it to return a scalar tensor, got {type(value).__name__}")
    value = torch.as_tensor(value)
    if value.numel() != 1:
        raise ValueError(f"{where}: expected it to return a scalar, got shape {list(value.shape)}")
    return value.reshape(())


def _device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _total(terms: list[Tensor], device: torch.device, wide: bool) -> Tensor:
    """The sum on one device: float64 if wide, else float32, as l0-python's float32 zero is promoted."""
    dtype = torch.float64 if wide else torch.float32
    return torch.stack([term.to(device, dtype) for term in terms or [torch.zeros(())]]).sum()


def compute_l2_penalty(model: nn.Module) -> Tensor:
    """Sum of squares of the weights: of all parameters that require a gradient and have "weight" in their full name.

    The name is the one that ``named_parameters()`` gives, so "weight" may also come from a module, as in l0-python.
    Gate parameters (``qz_logits``, ``log_alpha``) do not count, whatever their module is called: l0-python adds the
    squared logits of every ``weight_gates.qz_logits``, which pulls all gates towards half open.

    Returns:
        A scalar on the device of the model's first parameter, differentiable, summed in float64: float64 if a weight
        is, else float32. 0 where there are no weights.

    Raises:
        TypeError: model is no module.
    """
    weights: dict[torch.device, list[Tensor]] = {}
    for name, parameter in checked_model(model).named_parameters():
        if "weight" in name and parameter.requires_grad and GATE_PARAMETERS.isdisjoint(name.split(".")):
            weights.setdefault(parameter.device, []).append(parameter)
    sums = [_SumOfSquares.apply(*tensors) for tensors in weights.values()]
    return _total(sums, _device(model), any(w.dtype == torch.float64 for w in chain(*weights.values())))


class _SumOfSquares(torch.autograd.Function):
    """Over all tensors of a device at once, with no temporary of their size; backward writes the gradients only."""

    @staticmethod
    def forward(*tensors):
        dtype = torch.float32 if tensors[0].device.type == "mps" else torch.float64  # MPS has no float64
        return torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype)).square().sum()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():  # create_graph=True: torch cannot differentiate this _foreach_mul again
            return tuple(tensor * (2 * grad).to(tensor.dtype) for tensor in ctx.saved_tensors)
        return tuple(torch._foreach_mul(ctx.saved_tensors, 2 * grad))


def compute_l0l2_penalty(model: nn.Module, l0_lambda: float = 1e-3, l2_lambda: float = 1e-4) -> Tensor:
    """``l0_lambda * compute_l0_penalty(model) + l2_lambda * compute_l2_penalty(model)``, a scalar.

    Args:
        model: any module.
        l0_lambda, l2_lambda: finite numbers, or tensors of one element.

    Raises:
        TypeError, ValueError: an argument of another type or not finite, by name.
    """
    _check_factor("l0_lambda", l0_lambda)
    _check_factor("l2_lambda", l2_lambda)
    return l0_lambda * compute_l0_penalty(model) + l2_lambda * compute_l2_penalty(model)


def _check_factor(name: str, value) -> None:
    if isinstance(value, Tensor):
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} ({value!r})")
    if not abs(value) < float("inf"):
        raise ValueError(f"{name}: expected a finite number, got {value}")


@torch.no_grad()
def get_sparsity_stats(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Sparsity of every module that has ``get_sparsity`` and ``get_l0_penalty``, by its name in the model.

    Returns:
        For each: 'sparsity' (float in [0, 1]: its ``get_sparsity()``), 'active_params' (float: expected open gates)
        and 'total_params' (int: elements of its ``weight`` where it has one, else its number of gates). A structured
        layer thus counts channels as active and weights in total, as in l0-python.

    Raises:
        TypeError: model is no module.
        ValueError: a module of your own has neither weight nor gates, and its sparsity is 1: its total is unknown.
    """
    return {
        name: {
            "sparsity": module.get_sparsity(),
            "active_params": float(module.get_l0_penalty()),
            "total_params": _total_params(name, module),
        }
        for name, module in named_gated_modules(checked_model(model))
        if hasattr(module, "get_sparsity")
    }


def _total_params(name: str, module: nn.Module) -> int | float:
    if isinstance(module, L0Regularizer):
        return module.gated_count()
    if isinstance(module, L0DepthwiseConv2d):  # l0-python finds no weight on it and counts channels
        return module.gates.qz_logits.numel()
    if hasattr(module, "weight"):
        return module.weight.numel()
    if hasattr(module, "gates"):
        return int(torch.Size(torch.as_tensor(module.gates.gate_size).reshape(-1)).numel())
    if hasattr(module, "log_alpha"):
        return module.log_alpha.numel()
    open_share = 1 - module.get_sparsity()
    if open_share == 0:
        raise ValueError(f"{name or 'model'}: expected a weight or gates to count, got a sparsity of 1 without either")
    return float(module.get_l0_penalty()) / open_share


@torch.no_grad()
def get_active_parameter_count(model: nn.Module) -> int:
    """Expected number of open gates as an int: that of each module rounded down, and summed.

    The modules are those of :func:`compute_l0_penalty`, each gate counted once.

    Raises:
        TypeError, ValueError: as :func:`compute_l0_penalty`.
    """
    layers, answers = split_penalties(checked_model(model))
    penalties = [_one_number(module, value) for module, value in answers]
    return sum(int(penalty) for penalty in penalties + [layer.get_l0_penalty() for layer in layers])
