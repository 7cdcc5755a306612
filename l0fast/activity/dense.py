"""A dense layer with an activation, initialisers and a regulariser each for kernel and bias."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import as_flag, as_floating, as_size
from .regularizer import TensorRegularizer, l0_regularizer

Initializer = Callable[[Tensor], object]


class L0Dense(nn.Module):
    """``y = activation(x (weight * z)^T + bias * z_b)``: kernel and bias each with L0 gates of a price of their own.

    Args:
        in_features, out_features: sizes of x's last dimension and of y's.
        activation: applied to the result, or None.
        use_bias: whether there is one.
        kernel_initializer, bias_initializer: fill a tensor in place, as the functions of torch.nn.init do; None is
            Glorot uniform for the kernel and 0 for the bias.
        kernel_regularizer, bias_regularizer: a price of an open gate, a :func:`l0fast.activity.l0_regularizer`, or None
            for no gates.
        device, dtype: of the parameters.

    Attributes:
        weight: parameter [out_features, in_features]. bias: parameter [out_features] or None.
        kernel_regularizer, bias_regularizer: :class:`l0fast.activity.TensorRegularizer` or None.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 2.2.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: Callable[[Tensor], Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: Initializer | None = None,
        bias_initializer: Initializer | None = None,
        kernel_regularizer: float | TensorRegularizer | None = None,
        bias_regularizer: float | TensorRegularizer | None = None,
        *,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.in_features = as_size("in_features", in_features)
        self.out_features = as_size("out_features", out_features)
        self.activation = _as_function("activation", activation)
        self.kernel_initializer = _as_function("kernel_initializer", kernel_initializer) or nn.init.xavier_uniform_
        self.bias_initializer = _as_function("bias_initializer", bias_initializer) or nn.init.zeros_
        placed = {"device": device, "dtype": as_floating(dtype)}
        self.weight = nn.Parameter(torch.empty(self.out_features, self.in_features, **placed))
        bias = torch.empty(self.out_features, **placed) if as_flag("use_bias", use_bias) else None
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))
        if bias is None and bias_regularizer is not None:
            raise ValueError("bias_regularizer: expected None where use_bias is False, got one")
        self.kernel_regularizer = _as_regularizer("kernel_regularizer", kernel_regularizer, self.weight)
        self.bias_regularizer = _as_regularizer("bias_regularizer", bias_regularizer, self.bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Kernel and bias from their initialisers; gates as they are."""
        self.kernel_initializer(self.weight)
        if self.bias is not None:
            self.bias_initializer(self.bias)

    def masked(self) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias times their gates: sampled in training, deterministic in evaluation."""
        return _masked(self.weight, self.kernel_regularizer), _masked(self.bias, self.bias_regularizer)

    def forward(self, x: Tensor) -> Tensor:
        """y [..., out_features] from x [..., in_features]."""
        y = F.linear(x, *self.masked())
        return y if self.activation is None else self.activation(y)

    @torch.no_grad()
    def materialize(self) -> nn.Module:
        """An ordinary nn.Linear, followed by the activation if there is one, that computes what evaluation computes."""
        training = self.training
        self.eval()
        weight, bias = self.masked()
        self.train(training)
        linear = nn.Linear(self.in_features, self.out_features, bias=bias is not None, device="meta")
        linear.weight = nn.Parameter(weight.detach().clone(), requires_grad=self.weight.requires_grad)
        if bias is not None:
            linear.bias = nn.Parameter(bias.detach().clone(), requires_grad=self.bias.requires_grad)
        if self.activation is None:
            return linear.eval()
        follows = self.activation if isinstance(self.activation, nn.Module) else _Function(self.activation)
        return nn.Sequential(linear, follows).eval()

    @torch.no_grad()
    def prune(self, threshold: float) -> None:
        """Sets the parts of kernel and bias to 0 whose gate has P(z != 0) <= threshold."""
        for tensor, regularizer in ((self.weight, self.kernel_regularizer), (self.bias, self.bias_regularizer)):
            if regularizer is not None:
                tensor.masked_fill_(regularizer.gates.get_active_prob() <= threshold, 0)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _masked(tensor: Tensor | None, regularizer: TensorRegularizer | None) -> Tensor | None:
    return tensor if tensor is None or regularizer is None else regularizer.build(tensor).gates.masked(tensor)


def _as_function(name: str, value):
    if value is not None and not callable(value):
        raise TypeError(f"{name}: expected a function or None, got {type(value).__name__}")
    return value


def _as_regularizer(name: str, value, tensor: Tensor | None) -> TensorRegularizer | None:
    if value is None:
        return None
    if not isinstance(value, TensorRegularizer):
        try:
            value = l0_regularizer(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    return value.build(tensor)
