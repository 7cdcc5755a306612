"""Checks of plain arguments, for the constructors of layers and gates. Each message: name, expected, got."""

import math
from numbers import Integral, Real


def as_size(name: str, value) -> int:
    """A positive int.

    Raises:
        TypeError: not an int. ValueError: below 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__} ({value!r})")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return int(value)


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
