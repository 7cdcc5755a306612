"""Dense layers of the original code: one with a gate for each input unit, and an ordinary one with weight decay."""

import math

import torch
from torch import Tensor, nn

from .. import constants as c
from .._checks import as_flag, as_size
from ._base import NeuronGatedLayer, not_negative


class L0Dense(NeuronGatedLayer):
    """``y = x (z * weights) + bias`` with a Hard Concrete gate z for each input unit, a row of ``weights``.

    Args:
        in_features, out_features: sizes of x's last dimension and of y's.
        bias: whether there is one. It is never gated.
        weight_decay: precision of the Gaussian prior, at least 0.
        droprate_init: initial ``1 - sigmoid(qz_loga)``, strictly between 0 and 1.
        temperature: beta of the gates, above 0.
        lamba: price of each weight whose gate is open, at least 0.
        local_rep: in training, a draw of the gates for each example rather than one for the batch: gradients of less
            variance, at the price of a gate per example and unit.

    Attributes:
        weights: parameter [in_features, out_features]. qz_loga: parameter [in_features], the gates' log alpha.
        bias: parameter [out_features] or None.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), sections 2.2, 4.1 and equation 12.
    """

    bias_is_gated = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_decay: float = 1.0,
        droprate_init: float = 0.5,
        temperature: float = c.BETA,
        lamba: float = 1.0,
        local_rep: bool = False,
    ):
        super().__init__()
        self.in_features = as_size("in_features", in_features)
        self.out_features = as_size("out_features", out_features)
        shape = (self.in_features, self.out_features)
        self._make_parameters(
            shape, self.out_features, bias, droprate_init, temperature, weight_decay, lamba, local_rep
        )

    def _inputs_of_a_unit(self) -> int:
        return self.in_features

    def forward(self, input: Tensor) -> Tensor:
        """y [batch, ..., out_features] from x [batch, ..., in_features]; gates differ along dimension 0 alone."""
        if self.local_rep and self.training:
            z = self._example_gates(input, dims=1)
            return _product(input * z.view(z.shape[0], *[1] * (input.dim() - 2), -1), self.weights, self.bias)
        return _product(input, *self.masked_parameters())

    def folded(self) -> tuple[Tensor, Tensor | None]:
        weights, bias = super().folded()
        return weights.t(), bias

    def _expected_flops(self, open_gates: float) -> float:
        additions = max(open_gates - 1, 0) + self.use_bias
        return (open_gates + additions) * self.out_features

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, bias={self.use_bias}, droprate_init={self.droprate_init}, "
            f"lamba={self.lamba}, temperature={self.temperature:.4g}, weight_decay={self.prior_prec}, "
            f"local_rep={self.local_rep}"
        )


class MAPDense(nn.Module):
    """``y = x weight + bias`` without gates; its weight decay is in :meth:`regularization`, like that of gated layers.

    Args:
        in_features, out_features, bias, weight_decay: as in :class:`L0Dense`.

    Attributes:
        weight: parameter [in_features, out_features]. bias: parameter [out_features] or None.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, weight_decay: float = 1.0):
        super().__init__()
        self.in_features = as_size("in_features", in_features)
        self.out_features = as_size("out_features", out_features)
        self.weight_decay = not_negative("weight_decay", weight_decay)
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features)) if as_flag("bias", bias) else None)
        nn.init.normal_(self.weight, 0, math.sqrt(2 / in_features))

    def forward(self, input: Tensor) -> Tensor:
        """y [..., out_features] from x [..., in_features]."""
        return _product(input, self.weight, self.bias)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as nn.Linear has them; the bias is the parameter itself."""
        return self.weight.t(), self.bias

    def regularization(self) -> Tensor:
        """The log prior ``-weight_decay (|weight|^2 + |bias|^2) / 2``, as :meth:`L0Dense.regularization`."""
        return gaussian_log_prior(self)

    def constrain_parameters(self) -> None:
        """Nothing: there are no gates."""

    def count_expected_flops_and_l0(self) -> tuple[float, float]:
        """Multiplications and additions for one example, and the number of parameters."""
        has_bias = self.bias is not None
        flops = (2 * self.in_features - 1 + has_bias) * self.out_features
        return float(flops), float((self.in_features + has_bias) * self.out_features)


def gaussian_log_prior(layer: nn.Module) -> Tensor:
    squares = sum(parameter.square().sum() for parameter in layer.parameters())
    return -0.5 * layer.weight_decay * squares


def _product(input: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return input @ weights
    return torch.addmm(bias, input, weights) if input.dim() == 2 else input @ weights + bias
