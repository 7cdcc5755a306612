"""The expected number of open gates. Kernels: l0_penalty in csrc/cpu and csrc/cuda."""

import torch
from torch import Tensor

from .. import constants as c
from .. import reference
from ._common import check_floating, check_gate, fake, gradients, kernel_for, needs_gradient, sum_dtype

SHAPE = ("temperature", "gamma", "zeta", "bound")


def l0_penalty(
    log_alpha: Tensor,
    *,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
) -> Tensor:
    """sum P(z != 0) = sum sigmoid(clamp(log_alpha, -20, 20) - temperature log(-gamma / zeta)).

    Args:
        log_alpha: float16, bfloat16, float32 or float64 of any shape; arithmetic is in float32 (float64 for float64).
        temperature: beta > 0.
        gamma: below 0.
        zeta: above 1.
        bound: log_alpha is held to [-bound, bound].

    Returns:
        A scalar between 0 and the number of elements, float64 for float64 and else float32; summed in float64.

    Raises:
        TypeError: log_alpha is of another type or dtype.
        ValueError: temperature, gamma or zeta is out of range.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), equation 12.
    """
    check_floating("log_alpha", log_alpha)
    check_gate(temperature, gamma, zeta, bound)
    if not kernel_for(log_alpha):
        return reference.l0_penalty(log_alpha, temperature=temperature, gamma=gamma, zeta=zeta, bound=bound)
    scalars = (temperature, gamma, zeta, bound)
    log_alpha = log_alpha.contiguous()
    if needs_gradient(log_alpha):
        return _L0Penalty.apply(log_alpha, scalars)
    return torch.ops.l0fast.l0_penalty(log_alpha, *scalars)


class _L0Penalty(torch.autograd.Function):
    @staticmethod
    def forward(log_alpha, scalars):
        return torch.ops.l0fast.l0_penalty(log_alpha, *scalars)

    @staticmethod
    def setup_context(ctx, inputs, output):
        log_alpha, ctx.scalars = inputs
        ctx.save_for_backward(log_alpha)

    @staticmethod
    def backward(ctx, grad):
        return l0_penalty_gradient(grad, *ctx.saved_tensors, ctx.scalars), None


def l0_penalty_gradient(grad: Tensor, log_alpha: Tensor, scalars: tuple) -> Tensor:
    """grad times the penalty's slopes, which can be differentiated again; scalars as the op takes them."""

    def kernel(log_alpha, grad):
        return (torch.ops.l0fast.l0_penalty_backward(grad, log_alpha, *scalars),)

    def forward(log_alpha):
        return (reference.l0_penalty(log_alpha, **dict(zip(SHAPE, scalars, strict=True))),)

    return gradients(kernel, forward, (log_alpha,), (grad,))[0]


@fake("l0_penalty")
def _(log_alpha, *scalars):
    return log_alpha.new_empty((), dtype=sum_dtype(log_alpha.dtype))


@fake("l0_penalty_backward")
def _(grad, log_alpha, *scalars):
    return torch.empty_like(log_alpha)
