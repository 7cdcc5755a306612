"""Gated linear and embedding layers."""

from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _linked
from .._checks import as_floating, as_size
from .._modules import unchanged
from ._base import GatedLayer, checked_gate_dim


class L0Linear(GatedLayer):
    """``y = x (weight * z)^T + bias`` with Hard Concrete gates z on the weight.

    Args:
        in_features, out_features: sizes of x's last dimension and of y's.
        bias: whether there is one.
        temperature: beta of the gates, above 0.
        init_sparsity: initial ``1 - sigmoid(qz_logits)``, in [0, 1].
        use_l2: whether :meth:`get_l2_penalty` is the sum of squared weights rather than 0.
        gate_dim: None for a gate per weight; 0 for one per output (row), 1 for one per input (column).
        eval_temperature: False gives the original authors' test-time gate.
        device, dtype: of the parameters.

    Attributes:
        weight: parameter [out_features, in_features]. bias: parameter [out_features] or None.
        weight_gates: :class:`l0fast.HardConcrete` [out_features, in_features]; with gate_dim, channel_gates instead.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 2.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        temperature: float = 0.5,
        init_sparsity: float = 0.5,
        use_l2: bool = False,
        *,
        gate_dim: int | None = None,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.in_features = as_size("in_features", in_features)
        self.out_features = as_size("out_features", out_features)
        self.use_l2 = use_l2
        placed = {"device": device, "dtype": as_floating(dtype)}
        self.weight = nn.Parameter(torch.empty(out_features, in_features, **placed))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features, **placed)) if bias else None)
        gate_dim = checked_gate_dim(gate_dim, 2)
        self._make_gates(self.weight.shape, gate_dim, temperature, init_sparsity, eval_temperature, **placed)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """y [..., out_features] from x [..., in_features]."""
        plain = unchanged(self, GatedLayer, "masked_weight")
        if not (plain and _linked.linear_usable(input, self.weight)):
            return F.linear(input, self.masked_weight(), self.bias)
        handover = _linked.Handover()
        v = self.gates.masked(self.weight, self.gate_dim, handover)
        return _linked.linear(input, v, self.bias, handover)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class L0Embedding(GatedLayer):
    """``weight * z`` looked up by index, with Hard Concrete gates z on the table.

    Args:
        num_embeddings, embedding_dim: shape of the table.
        padding_idx: index whose row gets no gradient, or None.
        temperature, init_sparsity, use_l2: as in :class:`L0Linear`.
        gate_dim: None for a gate per element; 0 for one per row (a word), 1 for one per column (a feature).
        eval_temperature, device, dtype: as in :class:`L0Linear`.

    Attributes:
        weight: parameter [num_embeddings, embedding_dim], drawn from a standard normal as in nn.Embedding.
        weight_gates or channel_gates: as in :class:`L0Linear`.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        temperature: float = 0.5,
        init_sparsity: float = 0.5,
        use_l2: bool = False,
        *,
        gate_dim: int | None = None,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.num_embeddings = as_size("num_embeddings", num_embeddings)
        self.embedding_dim = as_size("embedding_dim", embedding_dim)
        if padding_idx is not None and (isinstance(padding_idx, bool) or not isinstance(padding_idx, Integral)):
            raise TypeError(f"padding_idx: expected None or an int, got {padding_idx!r}")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx: expected an index within {num_embeddings} rows, got {padding_idx}")
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.use_l2 = use_l2
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim, device=device, dtype=as_floating(dtype)))
        self.bias = None
        gate_dim = checked_gate_dim(gate_dim, 2)
        self._make_gates(self.weight.shape, gate_dim, temperature, init_sparsity, eval_temperature, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Standard normal rows, zeros for ``padding_idx``."""
        nn.init.normal_(self.weight)
        if self.padding_idx is not None:
            with torch.no_grad():
                self.weight[self.padding_idx].zero_()

    def forward(self, input: Tensor) -> Tensor:
        """Rows [..., embedding_dim] of indices [...]."""
        return F.embedding(input, self.masked_weight(), self.padding_idx)

    def extra_repr(self) -> str:
        return f"num_embeddings={self.num_embeddings}, embedding_dim={self.embedding_dim}"
