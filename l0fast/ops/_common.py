"""What the ops share: checks of their arguments, the registration of fake kernels, second derivatives."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch.autograd import forward_ad

from .. import _load
from .. import constants as c
from .._checks import FLOATING


def fake(name: str):
    """Registers the shape function of an op, where the op exists."""

    def register(function):
        if _load.native_error() is None:
            torch.library.register_fake(f"l0fast::{name}")(function)
        return function

    return register


def check_real(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {str(tensor.dtype).removeprefix('torch.')}")


def check_floating(name: str, tensor: Tensor) -> None:
    """What a layer may hold: 16-bit floats too."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype not in FLOATING:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {dtype}")


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of a sum over gates: float16 ends at 65504 and bfloat16 has 8 bits, so both add up to float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_like(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    check_real(name, tensor)
    if tensor.dtype != like.dtype or tensor.device != like.device:
        raise TypeError(
            f"{name}: expected {like.dtype} on {like.device} as {like_name} has, got {tensor.dtype} on {tensor.device}"
        )
    if tensor.shape != like.shape:
        raise ValueError(f"{name}: expected shape {list(like.shape)} as {like_name} has, got {list(tensor.shape)}")


def check_placed(like_name: str, like: Tensor, **tensors: Tensor | None) -> None:
    """Tensors that a kernel reads along with another one: on its device. A kernel could not read them elsewhere."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if tensor.device != like.device:
            raise ValueError(f"{name}: expected it on {like.device} as {like_name} is, got {tensor.device}")


def check_seed(seed: Tensor | None, like: Tensor) -> None:
    if seed is None:
        return
    if not isinstance(seed, Tensor) or seed.dtype != torch.int64 or seed.numel() != 1:
        got = f"{seed.dtype} of shape {list(seed.shape)}" if isinstance(seed, Tensor) else type(seed).__name__
        raise TypeError(f"seed: expected an int64 tensor of one element, got {got}")
    if seed.device != like.device:
        raise ValueError(f"seed: expected it on {like.device}, got {seed.device}")


def check_gate(temperature: float, gamma: float, zeta: float, bound: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    if not gamma < 0:
        raise ValueError(f"gamma: expected a negative number, got {gamma}")
    if not zeta > 1:
        raise ValueError(f"zeta: expected a number above 1, got {zeta}")
    if not bound > 0:
        raise ValueError(f"bound: expected a positive number, got {bound}")


def check_noise(stream: int, first_index: int, uniform_eps: float = c.UNIFORM_EPS) -> None:
    if not 0 <= stream < 2**32:
        raise ValueError(f"stream: expected 0 <= stream < 2^32, got {stream}")
    if first_index < 0:
        raise ValueError(f"first_index: expected a non-negative index, got {first_index}")
    if not 0 <= uniform_eps < 0.5:
        raise ValueError(f"uniform_eps: expected a number from 0 to below 1/2, got {uniform_eps}")


def check_gate_options(temperature: float, gamma: float, zeta: float, bound: float, uniform_eps: float) -> None:
    """What a module hands to the kernels itself."""
    check_gate(temperature, gamma, zeta, bound)
    check_noise(0, 0, uniform_eps)


def check_link(link: int) -> None:
    if link not in (c.LINK_EXP, c.LINK_IDENTITY):
        raise ValueError(f"link: expected LINK_EXP ({c.LINK_EXP}) or LINK_IDENTITY ({c.LINK_IDENTITY}), got {link}")


def needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def kernel_for(tensor: Tensor) -> bool:
    """Whether a kernel can do it.

    Under vmap, forward-mode differentiation and torch.jit.trace the reference does: it is plain torch.
    """
    return _load.native_for(tensor) and (torch.compiler.is_compiling() or not _beyond_kernels())


def _beyond_kernels() -> bool:
    if forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None:
        return True
    if not torch._C._are_functorch_transforms_active():
        return False
    return any(level.key() != TransformType.Grad for level in torch._C._functorch.get_interpreter_stack() or ())


NOISE_AND_GATE = ("stream", "first_index", "temperature", "gamma", "zeta", "bound", "uniform_eps", "eval_temperature")
"""The names of the kernels' scalar arguments, in their order; batch_gates has no eval_temperature."""


def named(scalars: Sequence) -> dict:
    """The kernels' scalars as the keyword arguments of the reference."""
    return dict(zip(NOISE_AND_GATE, scalars, strict=False))


def gradients(
    kernel: Callable[..., Sequence], forward: Callable[..., tuple], inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> Sequence:
    """``kernel(*inputs, *grads)``, the gradients of the inputs, so that they can be differentiated again.

    Args:
        kernel: returns a gradient for each input.
        forward: the same op in plain torch, from the inputs to a tuple of as many outputs as there are grads. Used
            only if somebody differentiates the gradients.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # grad mode in backward: create_graph=True
        return kernel(*inputs, *grads)
    return _Gradients.apply(kernel, forward, len(inputs), *inputs, *grads)


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(kernel, forward, count, *tensors):
        return tuple(kernel(*tensors))

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.forward_in_torch, ctx.count, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, *grads):
        def first(*tensors):
            return torch.func.vjp(ctx.forward_in_torch, *tensors[: ctx.count])[1](tensors[ctx.count :])

        return None, None, None, *torch.func.vjp(first, *ctx.saved_tensors)[1](grads)
