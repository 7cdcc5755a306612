"""Training steps of gated layers in as few passes over the weight as there can be: what layers use instead of ops.

The gate's backward node also takes the gradient of the penalty, through a scalar called the link: one pass gives both
parts of the gradient of log_alpha. Any order of calls works, as with separate nodes: the link's node keeps nothing that
autograd frees after a backward pass, so that it may run for the penalty and for the output at different times.
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from . import _load, reference
from .ops import _common
from .ops.l0_penalty import l0_penalty_gradient

LARGE = 1 << 16
"""Elements of a weight from which :func:`linear` beats F.linear: its node costs some 10 us of Python."""


class Handover:
    """What linear's backward leaves for the gate's, which runs next.

    With v at hand, z = v / weight: no noise is drawn again. If nobody else holds v, it and the gradient of v become the
    gradients: backward then needs no new memory for the weight and its gates.
    """

    __slots__ = ("expected", "v")

    def __init__(self):
        self.v: Tensor | None = None
        self.expected = False

    def take(self) -> tuple[Tensor | None, bool]:
        v, self.v = self.v, None
        disposable = v is not None and not _keeps_graph() and _is_ours_alone(v)
        return v, disposable


def _is_ours_alone(v: Tensor) -> bool:
    """Whether nobody else holds v or its memory: hooks on what autograd saves may."""
    # References: take's, this frame's and getrefcount's own. Users of the memory: v and the storage object made here.
    return sys.getrefcount(v) <= 3 and _storage_uses(v.untyped_storage()._cdata) <= 2


# torch's own names for these are private: whether the running backward pass keeps its graph (retain_graph), how many
# objects share some memory, and whether the running backward pass gets to a node.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)
_storage_uses = getattr(torch._C, "_storage_Use_Count", lambda pointer: 3)
_will_run = getattr(torch._C, "_will_engine_execute_node", lambda node: True)


def eager() -> bool:
    """Whether torch runs plainly, with gradients wanted.

    Everything else (torch.compile, torch.func, forward-mode derivatives, torch.jit.trace) goes through the ops, whose
    nodes save tensors as autograd prescribes.
    """
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and torch._C._get_tracing_state() is None
    )


def usable(*tensors: Tensor) -> bool:
    """Whether these are plain leaves on the CPU in plain eager mode, with kernels loaded and gradients wanted.

    Computed or substituted parameters go through the ops too.
    """
    return (
        eager()
        and all(type(t) is torch.nn.Parameter and t.device.type == "cpu" for t in tensors)
        and any(t.requires_grad for t in tensors)
        and _load.native_for(tensors[0])
    )


def masked_weight(weight, log_alpha, seed, dim, scalars, handover: Handover | None = None) -> tuple[Tensor, Tensor]:
    """v = weight z, and the link: a zero through which the penalty's gradient reaches the same backward pass."""
    handover = handover or Handover()
    handover.expected = True
    return _MaskedWeight.apply(weight, log_alpha, seed, dim, scalars, handover)


class _MaskedWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, log_alpha, seed, dim, scalars, handover):
        ctx.set_materialize_grads(False)
        # Attributes, not save_for_backward: those are freed after one pass. All of them outlive the graph anyway.
        ctx.parameters = (weight, log_alpha)
        ctx.versions = (weight._version, log_alpha._version)
        ctx.address = weight.data_ptr()
        ctx.seed, ctx.dim, ctx.scalars, ctx.handover = seed, dim, scalars, handover
        return torch.ops.l0fast.gated_weight(weight, log_alpha, seed, dim, False, *scalars)

    @staticmethod
    def backward(ctx, grad_v, grad_link):
        weight, log_alpha = ctx.parameters
        needed = ctx.needs_input_grad
        _check_version("log_alpha", log_alpha, ctx.versions[1])
        if grad_v is None:
            wanted = grad_link is not None and needed[1]
            grad = l0_penalty_gradient(grad_link, log_alpha, ctx.scalars[2:6]) if wanted else None
            return None, grad, None, None, None, None
        if needed[1]:  # else the weight is not read
            _check_version("weight", weight, ctx.versions[0])
        grad_weight, grad_log_alpha = _gradients(ctx, grad_v, grad_link)
        return grad_weight if needed[0] else None, grad_log_alpha if needed[1] else None, None, None, None, None


def _check_version(name: str, tensor: Tensor, version: int) -> None:
    if tensor._version != version:
        raise RuntimeError(
            f"{name}: expected version {version}, as in the forward pass, got {tensor._version}: "
            "it was changed in place before backward"
        )


def _gradients(ctx, grad_v: Tensor, grad_link: Tensor | None):
    def kernel(weight, log_alpha, grad_v, grad_link=None):
        v, disposable = ctx.handover.take()
        if v is not None and (weight._version, weight.data_ptr()) != (ctx.versions[0], ctx.address):
            v = None  # another weight than v was made of
        grad_v = grad_v.contiguous()
        if v is not None and disposable and ctx.dim is None:
            torch.ops.l0fast.gated_weight_backward_(grad_v, v, grad_link, weight, log_alpha, ctx.seed, *ctx.scalars)
            return grad_v, v.view(log_alpha.shape)
        return torch.ops.l0fast.gated_weight_backward(
            grad_v, grad_link, weight, log_alpha, v, ctx.seed, ctx.dim, *ctx.scalars
        )

    def forward(weight, log_alpha):
        outputs = reference.gated_weight(weight, log_alpha, ctx.seed, ctx.dim, **_common.named(ctx.scalars))
        return outputs if grad_link is not None else outputs[:1]

    grads = (grad_v,) if grad_link is None else (grad_v, grad_link)
    return _common.gradients(kernel, forward, ctx.parameters, grads)


def penalty(value: Tensor, *links: Tensor) -> Tensor:
    """value, the sum of the penalties of these links' gates: its gradient goes to each of them."""
    return _Penalty.apply(value, *links)


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, *links):
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return None, *[grad] * (len(ctx.needs_input_grad) - 1)


def linear(input: Tensor, v: Tensor, bias: Tensor | None, handover: Handover) -> Tensor:
    """F.linear(input, v, bias), whose gradient of v is written to huge pages and which hands v over to the gate's node.

    On a fresh buffer of this size page faults cost more than the product does.
    """
    return _Linear.apply(input, v, bias, handover)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, v, bias, handover):
        ctx.save_for_backward(input, v)
        ctx.handover = handover
        return F.linear(input, v, bias)

    @staticmethod
    def backward(ctx, grad):
        input, v = ctx.saved_tensors
        rows, columns = grad.reshape(-1, v.shape[0]), input.reshape(-1, v.shape[1])
        grad_input = grad @ v if ctx.needs_input_grad[0] else None
        grad_v = None
        if torch.is_grad_enabled():  # create_graph: ordinary ops, which can be differentiated again
            grad_v = rows.t() @ columns
        elif ctx.needs_input_grad[1] and _will_run(ctx.next_functions[1][0]):
            grad_v = torch.mm(rows.t(), columns, out=torch.ops.l0fast.empty_large(v))
            if ctx.handover.expected:
                ctx.handover.v = v
        return grad_input, grad_v, rows.sum(0) if ctx.needs_input_grad[2] else None, None


def linear_usable(input: Tensor, weight: Tensor) -> bool:
    """Whether :func:`linear` may take the place of F.linear: where it is faster and means the same."""
    return (
        weight.numel() >= LARGE
        and eager()
        and type(input) in (Tensor, torch.nn.Parameter)
        and type(weight) in (Tensor, torch.nn.Parameter)
        and input.dtype == weight.dtype in (torch.float32, torch.float64)
        and input.device == weight.device
        and input.dim() > 0
        and input.shape[-1] == weight.shape[1]
        and not torch.is_autocast_enabled("cpu")
        and weight.device.type == "cpu"
        and _load.native_for(weight)
    )
