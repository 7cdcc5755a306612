"""The re-weighted L2 and L0 penalty over all gates of a module."""

import torch
from torch import Tensor

from .. import _linked, _load, ops, reference
from ..ops import _common
from .fused import Link
from .group import Group, joined
from .layout import Layout, per_weight


def open_gates(group: Group, shape: dict, link: Link | None = None) -> Tensor:
    """sum p over the gates, a differentiable scalar: one call of an op, without a copy in float32 and float64.

    link: of the last forward, where it fits: the gradient is then computed along with that of the forward.
    """
    if link is not None:
        with torch.no_grad():
            value = open_gates(group, shape)
        return _linked.penalty(value, link.tensor)
    if group.log_alphas[0].dtype in (torch.float32, torch.float64):
        count = len(group.log_alphas)
        numbers = ([shape[name]] * count for name in ("temperature", "gamma", "zeta"))
        return ops.l0_penalties(group.log_alphas, *numbers, shape["bound"])
    return ops.l0_penalty(group.flat(), **shape)


def regularization(group: Group, lam: float, decay: float, shape: dict, link: Link | None = None) -> Tensor:
    """sum over the weights of ``p (decay w^2 / 2 + lam)``, p that of the weight's gate: a differentiable scalar."""
    sizes = {layout.per_gate for layout in group.layouts}
    if decay == 0 and len(sizes) == 1:
        return lam * sizes.pop() * open_gates(group, shape, link)
    flat = group.flat() if link is None else link.flat
    if group.elementwise:  # what the forward has joined serves again, and no operation is per parameter
        weights = [group.flat_weights() if link is None else link.flat_weights]
        layouts = [Layout((flat.numel(),), (flat.numel(),))]
    else:
        weights, layouts = group.weights, group.layouts
    fused = flat.dtype in (torch.float32, torch.float64) and _linked.eager() and _load.native_for(flat)
    if fused and flat.numel():
        return _Reweighted.apply(flat, layouts, lam, decay, shape, *weights)
    return _in_torch(flat, weights, layouts, lam, decay, shape)


def _costs(flat: Tensor, weights, layouts: list[Layout], lam: float, decay: float) -> Tensor:
    """``sum (decay w^2 / 2 + lam)`` over each gate's weights."""
    cost = lam * per_weight(layouts, flat)
    if decay == 0:
        return cost
    squares = [layout.sums(reference.arithmetic(w).square()) for layout, w in zip(layouts, weights, strict=True)]
    return cost + 0.5 * decay * joined(squares)


def _in_torch(flat: Tensor, weights, layouts: list[Layout], lam: float, decay: float, shape: dict) -> Tensor:
    p = reference.active_probability(reference.arithmetic(flat), **shape)
    return (p * _costs(flat, weights, layouts, lam, decay)).sum()


CHUNK = 1 << 16
"""Gates whose temporaries stay in a cache: fresh memory of a whole model's size costs more than the arithmetic."""


class _Reweighted(torch.autograd.Function):
    """The same without temporaries of the size of all gates, but two that backward needs."""

    @staticmethod
    def forward(ctx, flat, layouts, lam, decay, shape, *weights):
        ctx.layouts, ctx.lam, ctx.decay, ctx.shape = layouts, lam, decay, shape
        p, cost = (torch.ops.l0fast.empty_large(flat) for _ in range(2))
        for layout, weight, part in zip(layouts, weights, cost.split(_sizes(layouts)), strict=True):
            part = part.view(layout.gates)
            if not decay:
                part.fill_(lam * layout.per_gate)
            elif layout.elementwise:
                torch.mul(weight, weight, out=part).mul_(0.5 * decay).add_(lam)
            else:
                part.copy_(layout.sums(weight.square())).mul_(0.5 * decay).add_(lam * layout.per_gate)
        total = flat.new_zeros((), dtype=torch.float64)
        for a, chances, costs in zip(flat.split(CHUNK), p.split(CHUNK), cost.split(CHUNK), strict=True):
            chances.copy_(reference.active_probability(a, **shape))
            total += chances @ costs
        ctx.save_for_backward(flat, p, cost, *weights)
        return total.to(flat.dtype)

    @staticmethod
    def backward(ctx, grad):
        flat, p, cost, *weights = ctx.saved_tensors
        scalars = tuple(ctx.shape[name] for name in ("temperature", "gamma", "zeta", "bound"))

        keep = _linked._keeps_graph()
        slopes, products = (torch.ops.l0fast.empty_large(flat) if keep else own for own in (cost, p))

        def kernel(flat, *rest):
            *weights, grad = rest
            for a, costs, out in zip(flat.split(CHUNK), cost.split(CHUNK), slopes.split(CHUNK), strict=True):
                torch.mul(torch.ops.l0fast.l0_penalty_backward(grad, a, *scalars), costs, out=out)
            if not ctx.decay:
                return [slopes, *[zeros(weight) for weight in weights]]
            grads, parts = [], zip(p.split(_sizes(ctx.layouts)), products.split(_sizes(ctx.layouts)), strict=True)
            for layout, weight, (part, out) in zip(ctx.layouts, weights, parts, strict=True):
                if layout.elementwise:
                    grads.append(torch.mul(part.view_as(weight), weight, out=out.view_as(weight)))
                else:
                    grads.append(layout.apply(weight, part))
            return [slopes, *[values.mul_(ctx.decay * grad) for values in grads]]

        def forward(flat, *weights):
            return (_in_torch(flat, weights, ctx.layouts, ctx.lam, ctx.decay, ctx.shape),)

        grads = _common.gradients(kernel, forward, (flat, *weights), (grad,))
        wanted = grads[1:] if ctx.decay else [None] * len(weights)
        return grads[0], None, None, None, None, *wanted


def zeros(weight: Tensor) -> Tensor:
    """A gradient of 0 without memory of its own."""
    return weight.new_zeros(()).expand(weight.shape)


def _sizes(layouts: list[Layout]) -> list[int]:
    return [torch.Size(layout.gates).numel() for layout in layouts]
