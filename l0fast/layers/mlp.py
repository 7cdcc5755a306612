"""A multilayer perceptron of gated layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import penalties
from .linear import L0Linear


class SparseMLP(nn.Module):
    """Three :class:`L0Linear` layers with ReLU between them.

    Args:
        input_dim, hidden_dim, output_dim: sizes of the input, of both hidden layers and of the output.
        init_sparsity: initial ``1 - sigmoid(qz_logits)`` of all gates, in [0, 1].
        temperature: beta of all gates, above 0.
        use_l2: whether :meth:`get_l2_loss` is the sum of squared weights rather than 0.

    Attributes:
        fc1, fc2, fc3: the layers.
    """

    def __init__(
        self,
        input_dim: int = 784,
        hidden_dim: int = 256,
        output_dim: int = 10,
        init_sparsity: float = 0.5,
        temperature: float = 0.5,
        use_l2: bool = False,
    ):
        super().__init__()
        options = {"init_sparsity": init_sparsity, "temperature": temperature, "use_l2": use_l2}
        self.fc1 = L0Linear(input_dim, hidden_dim, **options)
        self.fc2 = L0Linear(hidden_dim, hidden_dim, **options)
        self.fc3 = L0Linear(hidden_dim, output_dim, **options)
        self.use_l2 = use_l2

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [batch, output_dim] from x [batch, ...], flattened to [batch, input_dim]."""
        x = x.reshape(x.size(0), -1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)

    def get_l0_loss(self) -> Tensor:
        """Expected number of open gates of all layers, a scalar: :func:`l0fast.compute_l0_penalty`."""
        return penalties.compute_l0_penalty(self)

    def get_l2_loss(self) -> Tensor:
        """Sum of squared weights of all layers, a scalar; 0 unless ``use_l2``."""
        layers = [m for m in self.modules() if m is not self and hasattr(m, "get_l2_penalty")]
        if not self.use_l2 or not layers:
            return torch.tensor(0.0)
        return torch.stack([layer.get_l2_penalty() for layer in layers]).sum()

    def get_sparsity_stats(self) -> dict[str, dict[str, Any]]:
        """For each gated layer by name: 'sparsity' and 'active_params' (expected open gates)."""
        stats = penalties.get_sparsity_stats(self)
        return {name: {key: s[key] for key in ("sparsity", "active_params")} for name, s in stats.items()}
