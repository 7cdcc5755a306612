"""Checks that calibration_epochs_ and calibration_step_ share."""

import math

from torch import Tensor

from .. import constants as c
from ._common import check_like, check_link, check_real


def check_records(log_weight: Tensor, state: dict[str, Tensor], bounds: dict[str, Tensor | None]) -> None:
    """What has an element for each record: all like log_weight; the bounds may be None."""
    check_real("log_weight", log_weight)
    for name, tensor in {**state, **bounds}.items():
        if tensor is not None or name not in bounds:
            check_like(name, tensor, "log_weight", log_weight)


def check_link_and_shrinkage(link: int, lambda_l1: float) -> None:
    check_link(link)
    if lambda_l1 and link != c.LINK_IDENTITY:
        raise ValueError(
            f"lambda_l1: expected 0 unless link is LINK_IDENTITY ({c.LINK_IDENTITY}), got {lambda_l1} with link {link}"
        )


def check_non_negative(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name}: expected a finite non-negative number, got {value}")
