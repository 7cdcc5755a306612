"""What operations do to the channels of their inputs. Each rule returns whether it knew what to do.

An operation that has no rule pins the channels that it reads (:mod:`._tracing`). A rule is right if the operation
still computes the same for the channels that stay when others are taken out of its inputs.
"""

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ._shadow import Shadow

aten = torch.ops.aten


def rule_of(func):
    rule = RULES.get(func.overloadpacket)
    return elementwise if rule is None and torch.Tag.pointwise in func.tags else rule


def elementwise(tracer, func, args, kwargs, out) -> bool:
    """Channels that meet in one element go together; they must not meet what has channels' size but no channels."""
    if not isinstance(out, Tensor):
        return False
    operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    rank = out.dim()
    labels, fixed = [], []
    for tensor in operands:
        shadow = tracer.shadow_of(tensor) or Shadow.unknown(tensor, fixed=True)
        lead = (1,) * (rank - tensor.dim())
        labels.append(shadow.labels.to(out.device).reshape(lead + shadow.labels.shape))
        fixed.append(shadow.fixed.to(out.device).reshape(lead + shadow.fixed.shape))
    varying = [d for d in range(rank) if any(part.shape[d] > 1 for part in labels)]
    met = []
    for tensor, part in zip(operands, labels, strict=True):
        size = (1,) * (rank - tensor.dim()) + tensor.shape
        if any(size[d] == 1 and out.shape[d] > 1 for d in varying):
            tracer.pin(Shadow(part, part), "it is spread over other channels")
        else:
            met.append(part)
    if not met:
        return False
    rows = torch.stack(torch.broadcast_tensors(*met))
    for row in rows.reshape(len(met), -1).unique(dim=1).T.tolist():
        _meet(tracer.channels, row, str(func.overloadpacket))
    independent = torch.stack(torch.broadcast_tensors(*fixed)).all(0)
    if func.overloadpacket is aten.mul:
        independent = _with_zero_factors(operands, fixed, independent, out)
    if len([d for d in range(rank) if rows.shape[d + 1] > 1]) > 1:
        return False
    tracer.put(out, Shadow.of(rows.amax(0), independent))
    return True


def _meet(channels, row: list[int], operation: str) -> None:
    known = [label for label in row if label >= 0]
    for label in known[1:]:
        channels.unite(known[0], label)
    if known and len(known) < len(row):
        channels.pin(known[0], f"{operation} combines it with what is no layer's channel")


def _with_zero_factors(operands, fixed, independent: Tensor, out: Tensor) -> Tensor:
    """A product is 0 wherever one factor is a constant 0."""
    for tensor, constant in zip(operands, fixed, strict=True):
        if constant.any() and not independent.all():
            independent = independent | (constant & (tensor == 0)).expand(out.shape)
    return independent


def move(tracer, func, args, kwargs, out) -> bool:
    """Elements change places: their shadow does the same. Channels must stay along one dimension."""
    parts = []
    for which in (0, 1):  # labels, fixed

        def shadow(tensor, which=which):
            known = tracer.shadow_of(tensor) or Shadow.unknown(tensor, fixed=True)
            return known[which].expand(tensor.shape)

        first = [shadow(t) for t in args[0]] if isinstance(args[0], list | tuple) else shadow(args[0])
        # an expanded shadow has other strides than its tensor, so a view of it may have to be a copy
        moved = first.reshape(args[1]) if func.overloadpacket in VIEWS else func(first, *args[1:], **kwargs)
        parts.append(list(moved) if isinstance(moved, list | tuple) else [moved])
    outputs = list(out) if isinstance(out, list | tuple) else [out]
    shadows = [Shadow.of(labels, fixed) for labels, fixed in zip(*parts, strict=True)]
    if any(sum(n > 1 for n in shadow.labels.shape) > 1 for shadow in shadows):
        return False
    for tensor, shadow in zip(outputs, shadows, strict=True):
        tracer.put(tensor, shadow)
    return True


def cast(tracer, func, args, kwargs, out) -> bool:
    """Another dtype, device or memory format."""
    shadow = tracer.shadow_of(args[0])
    tracer.put(out, Shadow(shadow.labels.to(out.device), shadow.fixed.to(out.device)))
    return True


def slice_(tracer, func, args, kwargs, out) -> bool:
    """Part of a tensor, at places that the code gives as numbers: not along channels, whose numbers would change."""
    parts = list(out) if isinstance(out, list | tuple) else [out]
    shape = tracer.shadow_of(args[0]).labels.shape
    for d, size in enumerate(shape):
        if size > 1 and any(part.shape[d] != args[0].shape[d] for part in parts):
            return False
    return move(tracer, func, args, kwargs, out)


def pick(tracer, func, args, kwargs, out) -> bool:
    """One index, each index, or a roll along the dimension that is named second (or last, for a roll)."""
    dims = args[2] if func.overloadpacket is aten.roll and len(args) > 2 else [args[1] if len(args) > 1 else 0]
    if func.overloadpacket is aten.roll and len(args) < 3:
        return False
    if not _uniform_along(tracer, args[0], dims):
        return False
    return move(tracer, func, args, kwargs, out)


def over_space(count: int | None):
    """A rule for what combines neighbours along the last ``count`` dimensions (of a pad: as many as it names)."""

    def rule(tracer, func, args, kwargs, out) -> bool:
        dims = range(-(len(args[1]) // 2 if count is None else count), 0)
        return _reduce(tracer, args[0], dims, out)

    return rule


def along(tracer, func, args, kwargs, out) -> bool:
    """What combines elements along the dimensions that are named second, and keeps or drops these."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    dims = [dims] if type(dims) is int else dims
    return isinstance(dims, list | tuple) and len(dims) > 0 and _reduce(tracer, args[0], dims, out)


def _uniform_along(tracer, tensor: Tensor, dims) -> bool:
    shadow = tracer.shadow_of(tensor)
    return all(shadow.labels.shape[d] == 1 for d in dims)


def _reduce(tracer, tensor: Tensor, dims, out) -> bool:
    if not _uniform_along(tracer, tensor, dims):
        return False
    dims = sorted(d % tensor.dim() for d in dims)
    labels, fixed = tracer.shadow_of(tensor)
    fixed = fixed.amin(dims, keepdim=True)
    outputs = list(out) if isinstance(out, list | tuple) else [out]
    if outputs[0].dim() < tensor.dim():
        for d in reversed(dims):
            labels, fixed = labels.squeeze(d), fixed.squeeze(d)
    for each in outputs:  # the positions that max gives beside its values are per channel as well
        tracer.put(each, Shadow(labels, fixed))
    return True


VIEWS = {aten.view, aten._unsafe_view, aten._reshape_alias}

METADATA = {
    *(aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like),
    *(aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty),
}
"""These read the shape only. What they make has channels' size and no channels, so it pins what it meets."""

RULES = {
    **dict.fromkeys((aten.hardswish,), elementwise),
    **dict.fromkeys((aten._to_copy, aten.lift_fresh), cast),
    **dict.fromkeys(
        (
            *(*VIEWS, aten.permute, aten.transpose, aten.t, aten.unsqueeze, aten.squeeze, aten.expand),
            *(aten.clone, aten.detach, aten.alias, aten.cat, aten.stack, aten.repeat, aten.flip),
        ),
        move,
    ),
    **dict.fromkeys((aten.slice, aten.split, aten.split_with_sizes), slice_),
    **dict.fromkeys((aten.select, aten.unbind, aten.roll), pick),
    **dict.fromkeys((aten.upsample_nearest1d, aten.upsample_linear1d), over_space(1)),
    **dict.fromkeys((aten.reflection_pad1d, aten.replication_pad1d), over_space(1)),
    **dict.fromkeys((aten.max_pool2d_with_indices, aten.avg_pool2d, aten._adaptive_avg_pool2d), over_space(2)),
    **dict.fromkeys((aten.adaptive_max_pool2d, aten.upsample_nearest2d, aten.upsample_bilinear2d), over_space(2)),
    **dict.fromkeys((aten.upsample_bicubic2d, aten.reflection_pad2d, aten.replication_pad2d), over_space(2)),
    **dict.fromkeys((aten.max_pool3d_with_indices, aten.avg_pool3d, aten._adaptive_avg_pool3d), over_space(3)),
    **dict.fromkeys((aten.adaptive_max_pool3d, aten.upsample_nearest3d, aten.upsample_trilinear3d), over_space(3)),
    **dict.fromkeys((aten.reflection_pad3d, aten.replication_pad3d), over_space(3)),
    aten.constant_pad_nd: over_space(None),
    **dict.fromkeys((aten.mean, aten.sum, aten.amax, aten.amin, aten.max, aten.min, aten.var, aten.std), along),
    **dict.fromkeys((aten.logsumexp, aten._softmax, aten._log_softmax, aten.cumsum), along),
}
