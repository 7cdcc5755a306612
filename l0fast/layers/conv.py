"""Gated convolutions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import as_floating, as_size, as_sizes
from ._base import GatedLayer, checked_gate_dim

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
OUTPUT_CHANNELS = 0


class _GatedConv(GatedLayer):
    """Arguments, parameters and gates of an N-dimensional convolution; the subclasses name N."""

    spatial_dims: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        bias: bool = True,
        temperature: float = 0.5,
        init_sparsity: float = 0.5,
        structured: bool = False,
        use_l2: bool = False,
        *,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        gate_dim: int | None = None,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.in_channels = as_size("in_channels", in_channels)
        self.out_channels = as_size("out_channels", out_channels)
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, as_size("groups", groups)
        self.padding_mode = padding_mode
        self._check_geometry()
        self.use_l2 = use_l2
        placed = {"device": device, "dtype": as_floating(dtype)}
        self.weight = nn.Parameter(torch.empty(self._weight_shape(), **placed))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels, **placed)) if bias else None)
        gate_dim = checked_gate_dim(gate_dim, 2)
        if gate_dim is not None and not structured:
            raise ValueError(f"gate_dim: expected structured=True with it, got structured={structured}")
        self.structured = structured
        if structured and gate_dim is None:
            gate_dim = 1 if self.transposed else OUTPUT_CHANNELS
        elements = (self.weight.shape[0], math.prod(self.weight.shape[1:]))
        self._make_gates(elements, gate_dim, temperature, init_sparsity, eval_temperature, **placed)
        self.reset_parameters()

    def __setstate__(self, state: dict) -> None:
        """Also takes what l0-python has pickled, whose convolutions have none of these three."""
        super().__setstate__({"dilation": 1, "groups": 1, "padding_mode": "zeros", **state})

    def _sizes(self, name: str, value, least: int = 1) -> tuple[int, ...]:
        return as_sizes(name, value, self.spatial_dims, least)

    def _check_geometry(self) -> None:
        strides = self._sizes("stride", self.stride)
        self._sizes("dilation", self.dilation)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"groups: expected a divisor of {name} = {channels}, got {self.groups}")
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode: expected one of {', '.join(PADDING_MODES)}, got {self.padding_mode!r}")
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(f"padding: expected sizes, 'same' or 'valid', got {self.padding!r}")
            if self.padding == "same" and max(strides) > 1:
                raise ValueError(f"padding: 'same' needs a stride of 1, got stride {self.stride}")
        else:
            self._sizes("padding", self.padding, least=0)

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        """y [batch, out_channels, ...] from x [batch, in_channels, ...]; the batch may be left out."""
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.spatial_dims - 1]
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._pad_sizes(), mode=self.padding_mode), 0
        return convolve(input, self.masked_weight(), self.bias, self.stride, padding, self.dilation, self.groups)

    def _pad_sizes(self) -> list[int]:
        """Both sides of each dimension, the last dimension first, as F.pad wants them."""
        if self.padding == "valid":
            return [0] * (2 * self.spatial_dims)
        if self.padding == "same":
            dilation = self._sizes("dilation", self.dilation)
            total = [d * (k - 1) for d, k in zip(dilation, self.kernel_size, strict=True)]
            sides = [(t // 2, t - t // 2) for t in total]
        else:
            sides = [(p, p) for p in self._sizes("padding", self.padding, least=0)]
        return [size for side in reversed(sides) for size in side]

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, structured={self.structured}, bias={self.bias is not None}"
        )


class L0Conv1d(_GatedConv):
    """1-dimensional :class:`L0Conv2d`: x [batch, in_channels, length]."""

    spatial_dims = 1


class L0Conv2d(_GatedConv):
    """``y = conv2d(x, weight * z) + bias`` with Hard Concrete gates z on the weight.

    Args:
        in_channels, out_channels: of x [batch, in_channels, height, width] and of y.
        kernel_size, stride, padding: as in nn.Conv2d.
        bias: whether there is one.
        temperature: beta of the gates, above 0.
        init_sparsity: initial ``1 - sigmoid(qz_logits)``, in [0, 1].
        structured: a gate per output channel (``channel_gates``) rather than per weight (``weight_gates``).
        use_l2: whether :meth:`get_l2_penalty` is the sum of squared weights rather than 0.
        dilation, groups, padding_mode: as in nn.Conv2d.
        gate_dim: with ``structured``, the dimension of the weight that has a gate per slice: 0 for output channels
            (the default), 1 for input channels.
        eval_temperature: False gives the original authors' test-time gate.
        device, dtype: of the parameters.

    Attributes:
        weight: parameter [out_channels, in_channels / groups, kernel height, kernel width].
        bias: parameter [out_channels] or None.
        weight_gates: :class:`l0fast.HardConcrete` [out_channels, in_channels / groups * kernel elements], or
        channel_gates: :class:`l0fast.HardConcrete` [out_channels].

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 2 and 4.1 (gates for groups of parameters).
    """

    spatial_dims = 2


class L0Conv3d(_GatedConv):
    """3-dimensional :class:`L0Conv2d`: x [batch, in_channels, depth, height, width]."""

    spatial_dims = 3


class L0ConvTranspose2d(_GatedConv):
    """``y = conv_transpose2d(x, weight * z) + bias``; arguments as in :class:`L0Conv2d`, and ``output_padding``.

    The weight is [in_channels, out_channels / groups, kernel height, kernel width], as in nn.ConvTranspose2d:
    ``structured`` puts a gate on each output channel of a group, dimension 1, unless ``gate_dim`` says 0.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    spatial_dims = 2
    transposed = True

    def __init__(self, *args, output_padding: int | Sequence[int] = 0, **options):
        super().__init__(*args, **options)
        self._sizes("output_padding", output_padding, least=0)
        self.output_padding = output_padding

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def _check_geometry(self) -> None:
        super()._check_geometry()
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise ValueError(
                f"padding: a transposed convolution takes sizes and pads with zeros, got {self.padding!r} "
                f"and padding_mode {self.padding_mode!r}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """y [batch, out_channels, ...] from x [batch, in_channels, ...]."""
        return F.conv_transpose2d(
            *(input, self.masked_weight(), self.bias, self.stride, self.padding),
            *(self.output_padding, self.groups, self.dilation),
        )
