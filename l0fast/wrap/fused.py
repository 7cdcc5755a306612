"""A group's masked parameters from one pass over all of them; backward in one pass too, which needs no noise again.

As in :mod:`l0fast._linked`, whose link lets the penalty's gradient share that pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _linked, _load, ops
from ..ops import _common
from .group import Group


class Link(NamedTuple):
    """A link and what it was made of: it is of use as long as that has not changed."""

    tensor: Tensor
    flat: Tensor  # log_alpha of all gates, joined
    flat_weights: Tensor
    parameters: list[Tensor]
    versions: list[int]
    shape: dict

    def fits(self, group: Group, shape: dict) -> bool:
        parameters = _parameters(group)
        same = len(self.parameters) == len(parameters) and self.shape == shape
        return same and all(
            a is b and b._version == version and b.dtype == self.tensor.dtype
            for a, b, version in zip(self.parameters, parameters, self.versions, strict=True)
        )


def _parameters(group: Group) -> list[Tensor]:
    return [*group.log_alphas, *group.weights]


def masked(group: Group, seed: Tensor | None, options: dict) -> tuple[list[Tensor], Link | None]:
    """``weight * z`` for each parameter of a group with a gate per element, and the link if there is one."""
    if not _usable(group):
        v, _ = ops.gated_weight(group.flat_weights(), group.flat(), seed, with_penalty=False, **options)
        return [part.view(w.shape) for part, w in zip(group.split(v), group.weights, strict=True)], None
    named = dict(zip(_common.NOISE_AND_GATE, DEFAULTS, strict=True)) | options
    scalars = tuple(named[name] for name in ORDER)
    weight, log_alpha = group.flat_weights().contiguous(), group.flat().contiguous()
    handover = _linked.Handover()
    v, link = _linked.masked_weight(weight, log_alpha, seed, None, scalars, handover)
    parts = _Apart.apply(v, handover, [w.shape for w in group.weights])
    if not log_alpha.requires_grad:
        return list(parts), None
    shape = {name: named[name] for name in ("temperature", "gamma", "zeta", "bound")}
    parameters = _parameters(group)
    return list(parts), Link(link, log_alpha, weight, parameters, [x._version for x in parameters], shape)


ORDER = ("stream", "first_index", "temperature", "gamma", "zeta", "bound", "uniform_eps", "eval_temperature")
"""The scalars of the op gated_weight."""

DEFAULTS = (0, 0, None, None, None, None, 0.0, True)
"""Of those, what a draw in training and one without noise leave to the op."""


def _usable(group: Group) -> bool:
    tensors = _parameters(group)
    return (
        _linked.eager()
        and all(type(t) is torch.nn.Parameter and t.device.type == "cpu" for t in tensors)
        and group.log_alphas[0].dtype in (torch.float32, torch.float64)
        and any(t.requires_grad for t in tensors)
        and _load.native_for(group.weights[0])
    )


class _Apart(torch.autograd.Function):
    """The parameters that v consists of. Backward hands v over to the gates' node, which then draws no noise again."""

    @staticmethod
    def forward(ctx, v, handover, shapes):
        ctx.handover, ctx.shapes = handover, shapes
        ctx.save_for_backward(v)
        parts = v.detach().split([shape.numel() for shape in shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))

    @staticmethod
    def backward(ctx, *grads):
        (v,) = ctx.saved_tensors
        ctx.handover.give(v)
        return torch.cat([grad.reshape(-1) for grad in grads]), None, None
