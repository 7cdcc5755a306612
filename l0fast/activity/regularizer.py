"""The functional regulariser: a tensor in, the masked tensor and its scaled loss out."""

import math

import torch
from torch import Tensor, nn

from .._checks import FLOATING, as_real
from ..distributions import HardConcrete

PAPER_TEMPERATURE = 2 / 3
"""beta of the paper's experiments; gamma -0.1 and zeta 1.1 are HardConcrete's own."""


def as_scale(name: str, value) -> float:
    """A finite number, at least 0."""
    number = as_real(name, value)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{name}: expected a finite non-negative number, got {value}")
    return number


class Regularized(nn.Module):
    """What :func:`collect_regularization_losses` looks for: ``reg_const`` times the expected number of open gates."""

    gates: HardConcrete
    reg_const: float

    def get_l0_penalty(self) -> Tensor:
        """Expected number of open gates, a scalar: see :func:`l0fast.ops.l0_penalty`."""
        return self.gates.get_penalty()

    def get_sparsity(self) -> float:
        """``1 - mean P(z != 0)``, in [0, 1]."""
        return self.gates.get_sparsity()

    def regularization_loss(self) -> Tensor:
        """``reg_const * sum P(z != 0)`` of the gates as they are now, a scalar with a gradient."""
        return self.reg_const * self.get_l0_penalty()


class TensorRegularizer(Regularized):
    """``masked, loss = regularizer(tensor)``: what :func:`l0_regularizer` returns.

    ``masked = tensor * z`` with a gate per element, sampled in training and deterministic in evaluation, and
    ``loss = scale * sum P(z != 0)``. One regulariser belongs to one tensor: its gates have that tensor's shape, dtype
    and device, and are made at the first call or by :meth:`build`. An optimizer made before that misses them.
    """

    def __init__(self, scale: float, scope: str | None, temperature: float, init_sparsity: float):
        super().__init__()
        if scope is not None and not isinstance(scope, str):
            raise TypeError(f"scope: expected a str or None, got {type(scope).__name__}")
        self.scope = scope
        self.reg_const = as_scale("scale", scale)
        self.temperature, self.init_sparsity = temperature, init_sparsity
        self._made(torch.empty(1, device="meta"))  # checks the options before there is a tensor
        self.gates: HardConcrete | None = None

    def _made(self, tensor: Tensor) -> HardConcrete:
        return HardConcrete(
            *tensor.shape,
            temperature=self.temperature,
            init_mean=1 - self.init_sparsity,
            device=tensor.device,
            dtype=tensor.dtype,
        )

    def build(self, tensor: Tensor) -> "TensorRegularizer":
        """Makes the gates of this tensor; returns itself.

        Raises:
            TypeError: not a floating tensor. ValueError: the gates are there and have another shape, or no element.
        """
        if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATING:
            got = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"tensor: expected a floating torch.Tensor, got {got}")
        if self.gates is None:
            if tensor.dim() == 0 or tensor.numel() == 0:
                raise ValueError(f"tensor: expected at least one dimension and one element, got {list(tensor.shape)}")
            self.gates = self._made(tensor).train(self.training)
        elif self.gates.qz_logits.shape != tensor.shape:
            raise ValueError(
                f"tensor: expected shape {list(self.gates.qz_logits.shape)}, for which the gates were made, got "
                f"{list(tensor.shape)}; a regulariser belongs to one tensor"
            )
        return self

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """(masked tensor, of the tensor's shape; scaled loss, a scalar)."""
        masked = self.build(tensor).gates.masked(tensor)
        return masked, self.regularization_loss()

    def get_l0_penalty(self) -> Tensor:
        if self.gates is None:
            raise RuntimeError("l0_regularizer: expected a call with its tensor, or build(tensor), before this one")
        return super().get_l0_penalty()

    def extra_repr(self) -> str:
        return f"scale={self.reg_const}" + ("" if self.scope is None else f", scope={self.scope!r}")


def l0_regularizer(
    scale: float, scope: str | None = None, *, temperature: float = PAPER_TEMPERATURE, init_sparsity: float = 0.5
) -> TensorRegularizer:
    """A callable that masks a tensor with L0 gates and prices them: ``masked, loss = l0_regularizer(1e-3)(tensor)``.

    Args:
        scale: price of an open gate, finite and at least 0.
        scope: a name that :func:`repr` shows; torch names modules by their place.
        temperature: beta of the gates, above 0.
        init_sparsity: initial ``1 - sigmoid(qz_logits)``, in [0, 1].

    Returns:
        A :class:`TensorRegularizer`, a module: assign it to your own module, so that its gates are trained.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 2.2.
    """
    return TensorRegularizer(scale, scope, temperature, init_sparsity)


def collect_regularization_losses(model: nn.Module) -> list[Tensor]:
    """The losses of all L0 regularisers, dense layers and activity gates in a model, one scalar each.

    They are of the gates as they are now: the call may stand before or after the forward pass. A regulariser that
    several modules share counts once. ``sum(...)`` of them joins the loss of the task.

    Raises:
        TypeError: model is no module. RuntimeError: a regulariser in it has seen no tensor yet.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return [module.regularization_loss() for module in model.modules() if isinstance(module, Regularized)]
