"""Convolutions of the original code: one with a gate for each output map, and an ordinary one with weight decay."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import constants as c
from .._checks import as_size, as_sizes
from ._base import NeuronGatedLayer, not_negative
from .dense import gaussian_log_prior


class L0Conv2d(NeuronGatedLayer):
    """``y = z * (conv2d(x, weights) + bias)`` with a Hard Concrete gate z for each output map.

    A closed gate leaves a map of zeros: the bias belongs to the map's group, in every mode.

    Args:
        in_channels, out_channels: of x [batch, in_channels, height, width] and of y.
        kernel_size, stride, padding, dilation, groups: as in nn.Conv2d, sizes as ints or pairs.
        bias, droprate_init, temperature, weight_decay, lamba, local_rep: as in :class:`L0Dense`.

    Attributes:
        weights: parameter [out_channels, in_channels / groups, kernel height, kernel width].
        qz_loga: parameter [out_channels]. bias: parameter [out_channels] or None.
        input_shape: (channels, height, width) of the last input, or None before the first: the number of operations
            depends on it.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 4.1 (groups of parameters).
    """

    bias_is_gated = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        droprate_init: float = 0.5,
        temperature: float = c.BETA,
        weight_decay: float = 1.0,
        lamba: float = 1.0,
        local_rep: bool = False,
    ):
        super().__init__()
        self.in_channels = as_size("in_channels", in_channels)
        self.out_channels = as_size("out_channels", out_channels)
        self.kernel_size = as_sizes("kernel_size", kernel_size, 2)
        self.stride = as_sizes("stride", stride, 2)
        self.padding = as_sizes("padding", padding, 2, least=0)
        self.dilation = as_sizes("dilation", dilation, 2)
        self.groups = as_size("groups", groups)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"groups: expected a divisor of {name} = {channels}, got {groups}")
        self.input_shape: tuple[int, ...] | None = None
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self._make_parameters(
            shape, self.out_channels, bias, droprate_init, temperature, weight_decay, lamba, local_rep
        )

    def _inputs_of_a_unit(self) -> int:
        return self.weights[0].numel()

    def forward(self, input: Tensor) -> Tensor:
        """y [batch, out_channels, ...] from x [batch, in_channels, height, width]."""
        if not torch.compiler.is_compiling():  # a number that only the count needs: nothing to guard a graph by
            self.input_shape = tuple(input.shape[-3:])
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        if self.local_rep and self.training:
            z = self._example_gates(input, dims=3)
            return F.conv2d(input, self.weights, self.bias, *geometry) * z[:, :, None, None]
        return F.conv2d(input, *self.masked_parameters(), *geometry)

    def _expected_flops(self, open_gates: float) -> float:
        if self.input_shape is None:
            raise RuntimeError("input_shape: expected at least one forward before operations are counted, got None")
        return open_gates * flops_of_a_map(self, self.weights, self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, bias={self.use_bias}, droprate_init={self.droprate_init}, lamba={self.lamba}, "
            f"temperature={self.temperature:.4g}, weight_decay={self.prior_prec}, local_rep={self.local_rep}"
        )


class MAPConv2d(nn.Conv2d):
    """nn.Conv2d whose weight decay is in :meth:`regularization`, as the gated layers have it.

    Args:
        as nn.Conv2d takes them, and weight_decay: precision of the Gaussian prior, at least 0.

    Attributes:
        input_shape: as in :class:`L0Conv2d`.
    """

    def __init__(self, *args, weight_decay: float = 1.0, **options):
        weight_decay = not_negative("weight_decay", weight_decay)
        super().__init__(*args, **options)
        self.weight_decay = weight_decay
        self.input_shape: tuple[int, ...] | None = None
        nn.init.normal_(self.weight, 0, math.sqrt(2 / self.weight[0].numel()))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """y [batch, out_channels, ...] from x [batch, in_channels, height, width]."""
        if not torch.compiler.is_compiling():
            self.input_shape = tuple(input.shape[-3:])
        return super().forward(input)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias; the bias is the parameter itself."""
        return self.weight, self.bias

    def regularization(self) -> Tensor:
        """The log prior ``-weight_decay (|weight|^2 + |bias|^2) / 2``, as :meth:`L0Dense.regularization`."""
        return gaussian_log_prior(self)

    def constrain_parameters(self) -> None:
        """Nothing: there are no gates."""

    def count_expected_flops_and_l0(self) -> tuple[float, float]:
        """Multiplications and additions for one example, and the number of parameters."""
        if self.input_shape is None:
            raise RuntimeError("input_shape: expected at least one forward before operations are counted, got None")
        flops = self.out_channels * flops_of_a_map(self, self.weight, self.bias)
        return float(flops), float(sum(parameter.numel() for parameter in self.parameters()))


def flops_of_a_map(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> int:
    """Multiplications and additions for one output map of one example, ``input_shape`` given."""
    places = 1
    for d in range(2):
        reach = layer.dilation[d] * (layer.kernel_size[d] - 1) + 1
        places *= (layer.input_shape[d + 1] + 2 * layer.padding[d] - reach) // layer.stride[d] + 1
    return places * (2 * weight[0].numel() - 1 + (bias is not None))
