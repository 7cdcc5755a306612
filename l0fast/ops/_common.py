"""What the ops share: checks of their arguments and the registration of fake kernels."""

import torch
from torch import Tensor

from .. import _load
from .. import constants as c


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


FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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


def check_link(link: int) -> None:
    if link not in (c.LINK_EXP, c.LINK_IDENTITY):
        raise ValueError(f"link: expected LINK_EXP ({c.LINK_EXP}) or LINK_IDENTITY ({c.LINK_IDENTITY}), got {link}")


def needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
