"""Gated depthwise convolution."""

from torch import Tensor, nn

from .._checks import as_floating, as_size, as_sizes
from .._modules import hooked, unchanged
from ._base import GatedLayer


class L0DepthwiseConv2d(GatedLayer):
    """A convolution of each channel with a filter of its own, and a Hard Concrete gate on each channel.

    ``y = depthwise_conv(x * z)``, z one gate per channel; computed as a convolution with ``weight * z``, which is the
    same because each filter sees one channel.

    Args:
        in_channels: of x [batch, in_channels, height, width] and of y.
        kernel_size, stride, padding: as in nn.Conv2d.
        bias: whether there is one.
        temperature: beta of the gates, above 0.
        init_sparsity: initial ``1 - sigmoid(qz_logits)``, in [0, 1].
        dilation, padding_mode: as in nn.Conv2d.
        eval_temperature: False gives the original authors' test-time gate.
        device, dtype: of the parameters.

    Attributes:
        depthwise_conv: nn.Conv2d with weight [in_channels, 1, kernel height, kernel width] and bias [in_channels].
        channel_gates: :class:`l0fast.HardConcrete` [in_channels].

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    use_l2 = False

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        temperature: float = 0.5,
        init_sparsity: float = 0.5,
        *,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "zeros",
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.in_channels = as_size("in_channels", in_channels)
        self.kernel_size = as_sizes("kernel_size", kernel_size, 2)
        as_sizes("stride", stride, 2)
        as_sizes("dilation", dilation, 2)
        if not isinstance(padding, str):
            as_sizes("padding", padding, 2, least=0)
        self.stride = stride
        self.padding = padding
        placed = {"device": device, "dtype": as_floating(dtype)}
        self.depthwise_conv = nn.Conv2d(
            *(in_channels, in_channels, self.kernel_size, stride, padding, dilation),
            groups=in_channels,
            bias=bias,
            padding_mode=padding_mode,
            **placed,
        )
        self._make_gates((), 0, temperature, init_sparsity, eval_temperature, **placed)

    @property
    def weight(self) -> Tensor:
        """The filters: ``depthwise_conv.weight``."""
        return self.depthwise_conv.weight

    @property
    def bias(self) -> Tensor | None:
        """``depthwise_conv.bias``."""
        return self.depthwise_conv.bias

    def reset_parameters(self) -> None:
        """The inner nn.Conv2d's own initialisation."""
        self.depthwise_conv.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """y [batch, in_channels, ...] from x [batch, in_channels, ...]."""
        conv = self.depthwise_conv
        if _is_plain(conv):
            return conv._conv_forward(input, self.masked_weight(), conv.bias)
        return conv(input * self.channel_gates().view(-1, 1, 1))  # somebody's module or hooks in its place: call it


def _is_plain(conv: nn.Module) -> bool:
    return type(conv) is nn.Conv2d and unchanged(conv, nn.Conv2d, "forward", "_conv_forward") and not hooked(conv)
