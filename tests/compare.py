"""The tolerance rules of DESIGN 7. test_compare.py shows that they reject planted errors."""

import torch
from torch import Tensor

ROUNDING_FLOOR = 4
"""Units in the last place, of the largest value, that any order of operations may differ by."""

BAND = 1e-4
"""How close to 0 or 1 the unclamped gate may be before float32 and float64 may disagree on its side."""


def assert_as_good_as_torch(kernel: Tensor, plain: Tensor, truth: Tensor, what: str = "result", factor: float = 2.0):
    """The kernel's largest error against the float64 truth is at most twice plain torch's, plus a rounding floor."""
    assert kernel.dtype == plain.dtype and kernel.shape == plain.shape == truth.shape, what
    assert truth.dtype == torch.float64
    assert torch.isfinite(kernel).all(), f"{what}: not finite"
    if truth.numel() == 0:
        return
    floor = ROUNDING_FLOOR * torch.finfo(kernel.dtype).eps * max(truth.abs().max().item(), 1e-30)
    error = (kernel.double() - truth).abs().max().item()
    allowed = factor * (plain.double() - truth).abs().max().item() + floor
    assert error <= allowed, f"{what}: error {error:.3e} against the float64 truth, allowed {allowed:.3e}"


def away_from_kinks(z_unclamped: Tensor) -> Tensor:
    """Mask of the gates whose unclamped value is not within BAND of 0 or 1."""
    return ((z_unclamped.abs() > BAND) & ((z_unclamped - 1).abs() > BAND)).bool()
