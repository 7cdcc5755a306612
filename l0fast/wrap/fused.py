"""A group's masked parameters from one pass over all of them; backward in one pass too, which needs no noise again.

As in :mod:`l0fast._linked`, whose link lets the penalty's gradient share that pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _linked, _load, ops, reference
from ..ops import _common
from ..ops.l0_penalty import l0_penalty_gradient
from .group import Group


class Link(NamedTuple):
    """A link and what it was made of: it is of use as long as that has not changed."""

    tensor: Tensor
    log_alphas: list[Tensor]
    versions: list[int]
    shape: dict

    def fits(self, group: Group, shape: dict) -> bool:
        same = len(self.log_alphas) == len(group.log_alphas) and self.shape == shape
        return same and all(
            a is b and b._version == version and b.dtype == self.tensor.dtype
            for a, b, version in zip(self.log_alphas, group.log_alphas, self.versions, strict=True)
        )


def masked(group: Group, seed: Tensor | None, options: dict) -> tuple[list[Tensor], Link | None]:
    """``weight * z`` for each parameter of a group with a gate per element, and the link if there is one."""
    if not _usable(group):
        v, _ = ops.gated_weight(group.flat_weights(), group.flat(), seed, with_penalty=False, **options)
        return [part.view(w.shape) for part, w in zip(group.split(v), group.weights, strict=True)], None
    named = dict(zip(_common.NOISE_AND_GATE, DEFAULTS, strict=True)) | options
    scalars = tuple(named[name] for name in ORDER)
    shapes = [w.shape for w in group.weights]
    flat = group.flat()
    *parts, link = _Masked.apply(group.flat_weights(), flat, seed, scalars, shapes)
    if not flat.requires_grad:
        return parts, None
    shape = {name: named[name] for name in ("temperature", "gamma", "zeta", "bound")}
    return parts, Link(link, group.log_alphas, [x._version for x in group.log_alphas], shape)


ORDER = ("stream", "first_index", "temperature", "gamma", "zeta", "bound", "uniform_eps", "eval_temperature")
"""The scalars of the op gated_weight."""

DEFAULTS = (0, 0, None, None, None, None, 0.0, True)
"""Of those, what a draw in training and one without noise leave to the op."""


def _usable(group: Group) -> bool:
    tensors = (*group.weights, *group.log_alphas)
    return (
        _linked.eager()
        and all(type(t) is torch.nn.Parameter and t.device.type == "cpu" for t in tensors)
        and group.log_alphas[0].dtype in (torch.float32, torch.float64)
        and any(t.requires_grad for t in tensors)
        and _load.native_for(group.weights[0])
    )


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, log_alpha, seed, scalars, shapes):
        ctx.set_materialize_grads(False)
        weight, log_alpha = weight.contiguous(), log_alpha.contiguous()
        v, link = torch.ops.l0fast.gated_weight(weight, log_alpha, seed, None, False, *scalars)
        # Attributes for what the penalty's gradient may need after autograd has freed the graph; v goes with the graph.
        ctx.flats, ctx.versions = (weight, log_alpha), (weight._version, log_alpha._version)
        ctx.seed, ctx.scalars, ctx.shapes = seed, scalars, shapes
        ctx.save_for_backward(v)
        return *(part.view(s) for part, s in zip(v.split([s.numel() for s in shapes]), shapes, strict=True)), link

    @staticmethod
    def backward(ctx, *grads):
        *grads, grad_link = grads
        weight, log_alpha = ctx.flats
        needed = ctx.needs_input_grad
        _linked._check_version("log_alpha", log_alpha, ctx.versions[1])
        if all(grad is None for grad in grads):
            wanted = grad_link is not None and needed[1]
            grad = l0_penalty_gradient(grad_link, log_alpha, ctx.scalars[2:6]) if wanted else None
            return None, grad, None, None, None
        _linked._check_version("weight", weight, ctx.versions[0])
        pairs = zip(grads, ctx.shapes, strict=True)
        grad_v = torch.cat([(weight.new_zeros(s) if g is None else g).reshape(-1) for g, s in pairs])
        grad_weight, grad_log_alpha = _gradients(ctx, grad_v, grad_link, *ctx.saved_tensors)
        return grad_weight if needed[0] else None, grad_log_alpha if needed[1] else None, None, None, None


def _gradients(ctx, grad_v: Tensor, grad_link: Tensor | None, v: Tensor):
    # If the graph goes and nobody else holds v (it and the storage object made here are the two uses), nobody will
    # read v or grad_v again: they become the gradients.
    disposable = not _linked._keeps_graph() and _linked._storage_uses(v.untyped_storage()._cdata) <= 2
    scalars = ctx.scalars

    def kernel(weight, log_alpha, grad_v, grad_link=None):
        if disposable:
            torch.ops.l0fast.gated_weight_backward_(grad_v, v, grad_link, weight, log_alpha, ctx.seed, *scalars)
            return grad_v, v
        arguments = (grad_v, grad_link, weight, log_alpha, v, ctx.seed, None)
        return torch.ops.l0fast.gated_weight_backward(*arguments, *scalars)

    def forward(weight, log_alpha):
        outputs = reference.gated_weight(weight, log_alpha, ctx.seed, None, **_common.named(scalars))
        return outputs if grad_link is not None else outputs[:1]

    grads = (grad_v,) if grad_link is None else (grad_v, grad_link)
    return _common.gradients(kernel, forward, ctx.flats, grads)
