"""A weight multiplied by its gates. Kernels: gated_weight in csrc/cpu and csrc/cuda."""

import torch
from torch import Tensor

from .. import constants as c
from .. import reference
from ._common import (
    check_floating,
    check_gate,
    check_noise,
    check_seed,
    fake,
    gradients,
    kernel_for,
    named,
    needs_gradient,
    sum_dtype,
)


def gated_weight(
    weight: Tensor,
    log_alpha: Tensor,
    seed: Tensor | None = None,
    dim: int | None = None,
    *,
    with_penalty: bool = True,
    stream: int = 0,
    first_index: int = 0,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
    eval_temperature: bool = True,
    uniform_eps: float = c.UNIFORM_EPS,
) -> tuple[Tensor, Tensor]:
    r"""``v = weight * z`` and the L0 penalty, sampled, multiplied and added up in one pass; backward in one pass too.

    Args:
        weight: float16, bfloat16, float32 or float64 of any shape. Arithmetic is in float32 (float64 for float64).
        log_alpha: same dtype and device; a gate for each element of weight (any shape of as many elements), or with
            ``dim`` one for each slice of weight along it.
        seed: as in :func:`l0fast.ops.hard_concrete`; None for deterministic gates.
        dim: None, or the dimension of weight that has a gate per slice: 0 for rows and output channels, 1 for columns
            and input channels. Negative dimensions count from the end.
        with_penalty: False leaves it out: the second result is then a constant 0.
        stream, first_index, temperature, gamma, zeta, bound, eval_temperature, uniform_eps: as in
            :func:`l0fast.ops.hard_concrete`;
            the index of a gate's noise is its place in log_alpha.

    Returns:
        (v, penalty): v as weight; penalty a scalar, sum p over the gates, float64 for float64 and else float32.
        Only weight, log_alpha and seed are kept for backward, which draws the noise again.

    Raises:
        TypeError: a tensor of another type, dtype or device.
        ValueError: log_alpha has not the right number of gates; dim, temperature, gamma, zeta, stream or first_index is
            out of range.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 2 and equation 12; DESIGN 3.
    """
    dim = check_gated_weight(weight, log_alpha, dim)
    check_seed(seed, weight)
    check_gate(temperature, gamma, zeta, bound)
    check_noise(stream, first_index, uniform_eps)
    if not kernel_for(weight):
        return reference.gated_weight(
            *(weight, log_alpha, seed, dim),
            with_penalty=with_penalty,
            stream=stream,
            first_index=first_index,
            temperature=temperature,
            gamma=gamma,
            zeta=zeta,
            bound=bound,
            eval_temperature=eval_temperature,
            uniform_eps=uniform_eps,
        )
    scalars = (
        *(stream, first_index, temperature, gamma, zeta),
        *(bound, uniform_eps, eval_temperature),
    )
    weight, log_alpha = weight.contiguous(), log_alpha.contiguous()
    if needs_gradient(weight, log_alpha):
        return _GatedWeight.apply(weight, log_alpha, seed, dim, with_penalty, scalars)
    return torch.ops.l0fast.gated_weight(weight, log_alpha, seed, dim, with_penalty, *scalars)


def check_gated_weight(weight: Tensor, log_alpha: Tensor, dim: int | None) -> int | None:
    """dim as a number from 0, or None.

    Raises:
        TypeError, ValueError: see :func:`gated_weight`.
    """
    check_floating("weight", weight)
    check_floating("log_alpha", log_alpha)
    if log_alpha.dtype != weight.dtype or log_alpha.device != weight.device:
        raise TypeError(
            f"log_alpha: expected {weight.dtype} on {weight.device} as weight has, "
            f"got {log_alpha.dtype} on {log_alpha.device}"
        )
    if dim is None:
        if log_alpha.numel() != weight.numel():
            raise ValueError(
                f"log_alpha: expected a gate for each element of weight {list(weight.shape)}, "
                f"got shape {list(log_alpha.shape)}"
            )
        return None
    if not -weight.dim() <= dim < weight.dim():
        raise ValueError(f"dim: expected a dimension of weight {list(weight.shape)}, got {dim}")
    dim %= weight.dim()
    if log_alpha.numel() != weight.shape[dim]:
        raise ValueError(
            f"log_alpha: expected {weight.shape[dim]} gates for dim {dim} of weight {list(weight.shape)}, "
            f"got shape {list(log_alpha.shape)}"
        )
    return dim


class _GatedWeight(torch.autograd.Function):
    @staticmethod
    def forward(weight, log_alpha, seed, dim, with_penalty, scalars):
        return torch.ops.l0fast.gated_weight(weight, log_alpha, seed, dim, with_penalty, *scalars)

    @staticmethod
    def setup_context(ctx, inputs, output):
        weight, log_alpha, seed, ctx.dim, ctx.with_penalty, ctx.scalars = inputs
        ctx.save_for_backward(weight, log_alpha, seed)

    @staticmethod
    def backward(ctx, grad_v, grad_penalty):
        weight, log_alpha, seed = ctx.saved_tensors

        def kernel(weight, log_alpha, grad_v, grad_penalty=None):
            return torch.ops.l0fast.gated_weight_backward(
                grad_v.contiguous(), grad_penalty, weight, log_alpha, None, seed, ctx.dim, *ctx.scalars
            )

        def forward(weight, log_alpha):
            outputs = reference.gated_weight(weight, log_alpha, seed, ctx.dim, **named(ctx.scalars))
            return outputs if ctx.with_penalty else outputs[:1]

        grads = (grad_v, grad_penalty) if ctx.with_penalty else (grad_v,)
        return *gradients(kernel, forward, (weight, log_alpha), grads), None, None, None, None


@fake("gated_weight")
def _(weight, log_alpha, seed, dim, with_penalty, *scalars):
    return torch.empty_like(weight), weight.new_empty((), dtype=sum_dtype(weight.dtype))


@fake("gated_weight_backward")
def _(grad_v, grad_penalty, weight, log_alpha, v, seed, dim, *scalars):
    return torch.empty_like(weight), torch.empty_like(log_alpha)


@fake("gated_weight_backward_")
def _(grad_v, v, *arguments):
    return None


@fake("empty_large")
def _(like):
    return torch.empty_like(like)
