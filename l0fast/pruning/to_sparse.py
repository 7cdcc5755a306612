"""Mostly closed linear layers stored sparse, where that is faster."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .._checks import as_probability, as_size
from .materialize import materialize
from .sparse_linear import SparseLinear

DENSEST = 0.5
"""Layers above this density are not timed: nowhere did CSR win there."""

ROUNDS = 15
MARGIN = 0.9
"""A sparse layer must take less than this share of the dense layer's time."""


@dataclass(frozen=True)
class SparseChoice:
    """What :func:`to_sparse` found for one linear layer; times in microseconds, None where none were taken."""

    name: str
    density: float
    dense_us: float | None
    sparse_us: float | None
    converted: bool


def to_sparse(
    model: nn.Module, batch_size: int = 128, *, max_density: float | None = None, inplace: bool = False
) -> tuple[nn.Module, list[SparseChoice]]:
    """The materialized model with its sparse nn.Linear layers as :class:`SparseLinear`, where that is faster.

    Each nn.Linear with at most half of its weights nonzero is timed here and now, dense against sparse in turns, on
    random inputs [batch_size, in_features], and converted if it takes less than 0.9 of the time. For orientation
    (1024 x 1024, batch 128, float32, 1 thread of the machine in the README): dense 3.1 ms; CSR 2.2 ms at density 0.2,
    1.4 at 0.1, 0.6 at 0.05, 0.3 at 0.01; level with dense somewhere between 0.2 and 0.5, where it had clearly lost.

    Args:
        model: with or without gated layers (:func:`materialize` is applied).
        batch_size: rows of the inputs that the layer will see (all leading dimensions together).
        max_density: convert every layer up to this share of nonzeros instead of timing, for a choice that does not
            depend on the machine; in [0, 1].
        inplace: False leaves the model as it is.

    Returns:
        The model in evaluation mode, and a :class:`SparseChoice` for each nn.Linear. Half precision stays dense on a
        CPU: torch has no product for it.

    Raises:
        TypeError, ValueError: an argument, by name; also what :func:`materialize` refuses.
    """
    batch_size = as_size("batch_size", batch_size)
    if max_density is not None:
        max_density = as_probability("max_density", max_density)
    model = materialize(model, inplace=inplace)
    made, choices = {}, []
    for name, layer in model.named_modules():
        if type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks):
            choice = _choose(name, layer, batch_size, max_density)
            choices.append(choice)
            if choice.converted:
                made[layer] = SparseLinear.from_linear(layer)
    if model in made:
        return made[model], choices
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in made:
                parent.register_module(name, made[child])
    return model, choices


def _choose(name: str, layer: nn.Linear, batch_size: int, max_density: float | None) -> SparseChoice:
    weight = layer.weight.detach()
    density = weight.count_nonzero().item() / weight.numel()
    able = weight.dtype in (torch.float32, torch.float64) or weight.is_cuda
    if max_density is not None:
        return SparseChoice(name, density, None, None, able and density <= max_density)
    if not able or density > DENSEST:
        return SparseChoice(name, density, None, None, False)
    dense, sparse = _race([layer, SparseLinear.from_linear(layer)], batch_size)
    return SparseChoice(name, density, dense, sparse, sparse < MARGIN * dense)


@torch.no_grad()
def _race(layers: list[nn.Module], batch_size: int) -> list[float]:
    """The faster fifth's microseconds of each, taking turns: interruptions by others only ever make it slower."""
    weight = next(layer for layer in layers if isinstance(layer, nn.Linear)).weight
    generator = torch.Generator(weight.device).manual_seed(0)
    x = torch.randn(batch_size, weight.shape[1], generator=generator, device=weight.device).to(weight.dtype)
    samples: list[list[float]] = [[] for _ in layers]
    for _ in range(ROUNDS + 2):
        for layer, clock in zip(layers, samples, strict=True):
            began = time.perf_counter()
            layer(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            clock.append((time.perf_counter() - began) * 1e6)
    return [float(np.percentile(clock[2:], 20)) for clock in samples]
