"""What every gated layer shares: its gates, its masked weight and its penalties."""

import torch
from torch import Tensor, nn

from .._checks import as_probability
from ..distributions import HardConcrete

GATE_NAMES = ("weight_gates", "channel_gates")
"""Where a layer keeps its gates: one per element of the weight, or one per slice of it along ``gate_dim``."""


class GatedLayer(nn.Module):
    """A layer whose parameter ``weight`` is multiplied by Hard Concrete gates.

    Gates are per element (``weight_gates``) or one for each slice along a dimension of the weight (``channel_gates``).

    Attributes:
        gate_dim: None for gates per element, else the dimension of the weight along which there is one per slice.
        use_l2: whether :meth:`get_l2_penalty` is the sum of squared weights rather than 0.
    """

    gate_dim: int | None
    use_l2: bool
    weight: Tensor
    bias: Tensor | None

    def _make_gates(self, element_shape, gate_dim, temperature, init_sparsity, eval_temperature, device, dtype) -> None:
        """Adds ``weight_gates`` of element_shape, or ``channel_gates`` along gate_dim of the weight."""
        keep = 1.0 - as_probability("init_sparsity", init_sparsity)
        shape = element_shape if gate_dim is None else (self.weight.shape[gate_dim],)
        gates = HardConcrete(
            *shape,
            temperature=temperature,
            init_mean=keep,
            eval_temperature=eval_temperature,
            device=device,
            dtype=dtype,
        )
        self.gate_dim = gate_dim
        setattr(self, GATE_NAMES[gate_dim is not None], gates)

    def __setstate__(self, state: dict) -> None:
        """Also takes what l0-python has pickled, which has no gate_dim."""
        super().__setstate__({"gate_dim": 0 if "channel_gates" in state["_modules"] else None, **state})

    @property
    def gates(self) -> HardConcrete:
        """The layer's gates, whatever their name."""
        return self.weight_gates if self.gate_dim is None else self.channel_gates

    def reset_parameters(self) -> None:
        """Kaiming normal weights (fan out) and zero biases, as l0-python draws them; gates as they are."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def masked_weight(self) -> Tensor:
        """``weight * z``, of the weight's shape: z sampled in training, deterministic in evaluation."""
        return self.gates.masked(self.weight, self.gate_dim)

    def spread(self, per_gate: Tensor) -> Tensor:
        """A tensor of the gates' shape as one that broadcasts against the weight."""
        if self.gate_dim is None:
            return per_gate.view(self.weight.shape)
        return per_gate.view([-1 if d == self.gate_dim else 1 for d in range(self.weight.dim())])

    def get_l0_penalty(self) -> Tensor:
        """Expected number of open gates, a scalar in [0, number of gates]."""
        return self.gates.get_penalty()

    def get_l2_penalty(self) -> Tensor:
        """Sum of squared weights, a scalar; 0 unless ``use_l2``."""
        if not self.use_l2:
            return torch.tensor(0.0, device=self.weight.device)
        return self.weight.square().sum()

    def get_sparsity(self) -> float:
        """``1 - mean P(z != 0)`` over the gates, in [0, 1]."""
        return self.gates.get_sparsity()


def checked_gate_dim(gate_dim: int | None, dims: int) -> int | None:
    """gate_dim as a number from 0 to dims - 1, or None."""
    if gate_dim is None:
        return None
    if isinstance(gate_dim, bool) or not isinstance(gate_dim, int):
        raise TypeError(f"gate_dim: expected None or an int, got {gate_dim!r}")
    if not -dims <= gate_dim < dims:
        raise ValueError(f"gate_dim: expected a dimension of the weight, from {-dims} to {dims - 1}, got {gate_dim}")
    return gate_dim % dims
