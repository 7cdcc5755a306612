"""Checks of plain arguments, for the constructors of layers and gates. Each message: name, expected, got."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What gates and gated weights may be."""


def as_size(name: str, value, least: int = 1) -> int:
    """An int, at least 1 unless `least` says otherwise.

    Raises:
        TypeError: not an int. ValueError: below that.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__} ({value!r})")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def as_sizes(name: str, value, count: int, least: int = 1) -> tuple[int, ...]:
    """`count` ints, from as many or from one for all."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value,) * count
    if len(sizes) != count:
        raise ValueError(f"{name}: expected {count} sizes, got {value}")
    return tuple(as_size(name, size, least) for size in sizes)


def as_flag(name: str, value) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def as_floating(dtype: torch.dtype | None) -> torch.dtype | None:
    """None, torch's default, or what kernels and gradients exist for."""
    if dtype is not None and dtype not in FLOATING:
        got = str(dtype).removeprefix("torch.")
        raise TypeError(f"dtype: expected float16, bfloat16, float32 or float64, got {got}")
    return dtype


def as_real(name: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} ({value!r})")
    return float(value)


def positive(name: str, value) -> float:
    """A finite number above 0."""
    number = as_real(name, value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name}: expected a positive number, got {value}")
    return number


def as_probability(name: str, value) -> float:
    """A number in [0, 1]."""
    number = as_real(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: expected a probability in [0, 1], got {value}")
    return number
