"""Penalties of whole models."""

import torch
from torch import Tensor, nn


def compute_l0_penalty(model: nn.Module) -> Tensor:
    penalties = [m.get_l0_penalty() for m in model.modules() if hasattr(m, "get_l0_penalty")]
    return torch.stack(penalties).sum() if penalties else torch.tensor(0.0)


def get_sparsity_stats(model: nn.Module) -> dict:
    return {
        name: {"sparsity": m.get_sparsity(), "active_params": m.get_l0_penalty().item(), "total_params": 0}
        for name, m in model.named_modules()
        if hasattr(m, "get_l0_penalty")
    }
