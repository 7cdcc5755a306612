"""Where the parameters of a calibration start."""

import math

import numpy as np
import torch
from torch import Tensor

from .. import constants as c
from .sharding.bounds import Shard

FROZEN = 2 * c.LOG_ALPHA_BOUND
"""log_alpha of a gate that is always open (and minus it, always closed): beyond the bound no gradient moves it."""


def initial_log_weight(init_weights, n_features: int, device: torch.device) -> Tensor:
    """log(init_weights + 1e-8), float32 [n_features]. None means 1; the floor gives a weight of 0 a logarithm.

    Raises:
        ValueError: not a number nor of shape [n_features]; negative, NaN or infinite.
    """
    weights = _per_record("init_weights", 1.0 if init_weights is None else init_weights, n_features, device)
    _reject("init_weights", weights, ~torch.isfinite(weights) | (weights < 0), "finite weights of at least 0")
    return torch.log(weights + c.WEIGHT_FLOOR)


def initial_log_alpha(init_keep_prob, n_features: int, device: torch.device) -> Tensor:
    """log(p / (1 - p)), float32 [n_features]. Exactly 0 and 1 mean always closed and always open.

    Raises:
        ValueError: not a number nor of shape [n_features]; outside [0, 1] or NaN.
    """
    keep = _per_record("init_keep_prob", init_keep_prob, n_features, device)
    _reject("init_keep_prob", keep, ~((keep >= 0) & (keep <= 1)), "probabilities in [0, 1]")
    return torch.log(keep / (1 - keep)).clamp(-FROZEN, FROZEN)


def check_gate_options(n_features, beta, gamma, zeta, log_weight_jitter_sd=0.0, log_alpha_jitter_sd=0.0) -> None:
    """Raises TypeError or ValueError for the first of the constructor's scalars that is out of range."""
    if isinstance(n_features, bool) or not isinstance(n_features, int | np.integer):
        raise TypeError(f"n_features: expected an int, got {type(n_features).__name__}")
    if n_features < 1:
        raise ValueError(f"n_features: expected at least 1, got {n_features}")
    rules = [
        ("beta", beta, beta > 0, "a positive number"),
        ("gamma", gamma, gamma < 0, "a negative number"),
        ("zeta", zeta, zeta > 1, "a number above 1"),
        ("log_weight_jitter_sd", log_weight_jitter_sd, log_weight_jitter_sd >= 0, "a non-negative number"),
        ("log_alpha_jitter_sd", log_alpha_jitter_sd, log_alpha_jitter_sd >= 0, "a non-negative number"),
    ]
    for name, value, good, expected in rules:
        if not (good and math.isfinite(value)):
            raise ValueError(f"{name}: expected {expected}, got {value}")


def check_shard(shard, n_features: int) -> None:
    """Raises TypeError or ValueError where a model's shard is none, or of another number of records."""
    if shard is None:
        return
    if not isinstance(shard, Shard):
        raise TypeError(f"shard: expected a Shard or None, got {type(shard).__name__}")
    if shard.size != n_features:
        raise ValueError(f"shard: expected n_features ({n_features}) records, got {shard}")


def _per_record(name: str, value, n_features: int, device: torch.device) -> Tensor:
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32).to(device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a number or an array of numbers, got {type(value).__name__}") from error
    if tensor.dim() == 0:
        tensor = tensor.expand(n_features)
    if tensor.shape != (n_features,):
        raise ValueError(f"{name} array must have shape ({n_features},), got {tuple(tensor.shape)}")
    return tensor.detach().clone()


def _reject(name: str, tensor: Tensor, bad: Tensor, expected: str) -> None:
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(f"{name}: expected {expected}, got {tensor[first].item()} at record {first}")
