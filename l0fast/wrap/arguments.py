"""Checks of the wrapper's numbers."""

import math

from .._checks import as_real


def price(name: str, value) -> float:
    number = as_real(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    return number


def check_limits(limit_a: float, limit_b: float, epsilon: float) -> None:
    if not -math.inf < limit_a < 0:
        raise ValueError(f"limit_a: expected a negative number, got {limit_a}")
    if not 1 < limit_b < math.inf:
        raise ValueError(f"limit_b: expected a number above 1, got {limit_b}")
    if not 0 <= epsilon < 0.5:
        raise ValueError(f"epsilon: expected a number from 0 to below 1/2, got {epsilon}")
