"""From targets and options to the arrays that the loss needs (DESIGN 3), with every check made here."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import constants as c
from .. import reference

LOSS_TYPES = ("mse", "relative", "relative_epsilon", "capped_mape")


@dataclass(frozen=True)
class Objective:
    """sum_j omega_j rho((total_j - target_j) / scale_j); all tensors [n_targets] float64."""

    rho: int
    cap: float
    targets: Tensor
    scales: Tensor
    omega: Tensor
    tolerances: Tensor | None
    groups: np.ndarray | None
    """Codes 0..n_groups-1 of the targets' groups, or None."""

    def evaluate(self, totals: Tensor) -> tuple[Tensor, Tensor]:
        """The data loss of totals [n_targets] and its slopes dloss/dtotals [n_targets], both float64."""
        with torch.enable_grad():
            totals = totals.detach().double().requires_grad_()
            loss = reference.data_loss(
                *(totals, self.targets, self.scales, self.omega, self.tolerances, self.rho, self.cap),
            )
            (slopes,) = torch.autograd.grad(loss, totals)
        return loss.detach(), slopes

    def sha256(self) -> dict[str, str]:
        """A hash of each part under the name of the argument that decides it, for a checkpoint's signature."""
        parts = {
            "y": self.targets,
            "target_scales": self.scales,
            "target_weights or target_groups": self.omega,
            "target_tolerances": self.tolerances,
        }
        hashes = {
            name: "none" if x is None else hashlib.sha256(x.cpu().numpy().tobytes()).hexdigest()
            for name, x in parts.items()
        }
        return {**hashes, "loss_cap": str(self.cap)}


def build_objective(
    y,
    n_targets: int,
    loss_type: str = "mse",
    *,
    target_groups=None,
    normalize_groups: bool = True,
    group_multipliers: Mapping | None = None,
    target_weights=None,
    target_scales=None,
    target_tolerances=None,
    loss_cap: float = 1.0,
    device: torch.device | str = "cpu",
) -> Objective:
    """Checks the targets and the loss options and computes scale and omega of each target.

    ``scale`` is 1 for 'mse', t + 1 for 'relative', max(|t|, 1) for 'relative_epsilon' and 'capped_mape', unless
    ``target_scales`` says otherwise. ``omega`` is target_weights x group multiplier / group size (the last only with
    groups and ``normalize_groups``), and for 'capped_mape' it is divided by its sum.

    Raises:
        ValueError: a wrong length, a value that is not finite or out of range, an unknown loss or group, or a scale
            of 0 (target -1 under 'relative').
    """
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type: expected one of {', '.join(LOSS_TYPES)}, got {loss_type!r}")
    targets = finite_vector("y", y, n_targets)
    if loss_type == "mse":
        scales = np.ones(n_targets)
    elif loss_type == "relative":
        scales = targets + 1
    else:
        scales = np.maximum(np.abs(targets), 1)
    if target_scales is not None:
        scales = finite_vector("target_scales", target_scales, n_targets, scalar=True)
    if (zero := np.flatnonzero(scales == 0)).size:
        if target_scales is not None:
            raise ValueError(f"target_scales: expected non-zero scales, got 0 at target {zero[0]}")
        raise ValueError(
            f"y: loss_type 'relative' divides by y + 1, which is 0 at target {zero[0]} (y = -1); "
            "pass target_scales or use loss_type 'relative_epsilon'"
        )
    omega, groups = _omega(n_targets, target_weights, target_groups, normalize_groups, group_multipliers)
    if loss_type == "capped_mape":
        omega = omega / omega.sum()
        if not loss_cap > 0:
            raise ValueError(f"loss_cap: expected a positive number, got {loss_cap}")
    tolerances = _tolerances(target_tolerances, n_targets, loss_type)
    rho = {"relative_epsilon": c.RHO_EPSILON_SQUARE, "capped_mape": c.RHO_CAPPED_ABSOLUTE}.get(loss_type, c.RHO_SQUARE)

    def tensor(x):
        return None if x is None else torch.from_numpy(np.ascontiguousarray(x)).to(device)

    return Objective(
        rho=rho,
        cap=float(loss_cap) if loss_type == "capped_mape" else math.inf,
        targets=tensor(targets),
        scales=tensor(scales),
        omega=tensor(omega),
        tolerances=tensor(tolerances),
        groups=groups,
    )


def finite_vector(name: str, x, length: int, scalar: bool = False, item: str = "target") -> np.ndarray:
    """A finite float64 vector of the given length, one for each item; a copy, so that the caller may change x."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # NumPy has no bfloat16
    if np.iscomplexobj(x):
        raise TypeError(f"{name}: expected real numbers, got complex ones")
    try:
        array = np.array(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, got {type(x).__name__} ({error})") from None
    if scalar and array.ndim == 0:
        array = np.full(length, float(array))
    if array.shape != (length,):
        raise ValueError(f"{name}: expected shape ({length},), one for each {item}, got {array.shape}")
    if (bad := np.flatnonzero(~np.isfinite(array))).size:
        raise ValueError(f"{name}: expected finite values, got {array[bad[0]]} at {item} {bad[0]}")
    return array


def _tolerances(target_tolerances, n_targets: int, loss_type: str) -> np.ndarray | None:
    if loss_type != "relative_epsilon":
        if target_tolerances is not None:
            raise ValueError(
                f"target_tolerances: only loss_type 'relative_epsilon' has tolerances, got loss_type {loss_type!r}"
            )
        return None
    if target_tolerances is None:
        raise ValueError("target_tolerances: loss_type 'relative_epsilon' needs them, got None")
    tolerances = finite_vector("target_tolerances", target_tolerances, n_targets, scalar=True)
    if (bad := np.flatnonzero(tolerances < 0)).size:
        raise ValueError(
            f"target_tolerances: expected non-negative values, got {tolerances[bad[0]]} at target {bad[0]}"
        )
    return tolerances


def _omega(n_targets, target_weights, target_groups, normalize_groups, group_multipliers):
    """omega [n_targets] and the codes of the groups."""
    omega = np.ones(n_targets)
    if target_weights is not None:
        omega = finite_vector("target_weights", target_weights, n_targets, scalar=True)
        if (bad := np.flatnonzero(omega < 0)).size:
            raise ValueError(f"target_weights: expected non-negative values, got {omega[bad[0]]} at target {bad[0]}")
        if not omega.any():
            raise ValueError("target_weights: expected at least one positive weight, got all 0")
    if target_groups is None:
        if group_multipliers is not None:
            raise ValueError("group_multipliers requires target_groups to be set")
        return omega, None
    labels = np.asarray(target_groups.cpu() if isinstance(target_groups, Tensor) else target_groups)
    if labels.shape != (n_targets,):
        raise ValueError(f"target_groups: expected shape ({n_targets},), one for each target, got {labels.shape}")
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if normalize_groups:
        omega = omega / sizes[codes]
    for group, factor in (group_multipliers or {}).items():
        if group not in names:
            raise ValueError(f"group_multipliers key {group} not found in target_groups")
        if not (math.isfinite(factor) and factor >= 0):
            raise ValueError(f"group_multipliers: expected finite non-negative factors, got {factor} for group {group}")
        omega = np.where(labels == group, omega * factor, omega)
    return omega, codes
