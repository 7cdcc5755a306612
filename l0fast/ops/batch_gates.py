"""A draw of the gates for each example of a batch. Kernels: batch_gates in csrc/cpu and csrc/cuda."""

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
)


def batch_gates(
    log_alpha: Tensor,
    seed: Tensor,
    batch: int,
    *,
    stream: int = 0,
    first_index: int = 0,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
    uniform_eps: float = c.UNIFORM_EPS,
) -> Tensor:
    r"""Gates z [batch, *shape of log_alpha]: sampled as by :func:`l0fast.ops.hard_concrete`, anew for each example.

    Args:
        log_alpha: float16, bfloat16, float32 or float64 of any shape; n elements.
        seed: int64 tensor of one element on the same device.
        batch: number of examples, at least 0.
        stream: number of the draw, 0 <= stream < 2^32.
        first_index: index of the first gate of the first example; gate i of example b draws at
            ``first_index + b n + i``, so that a shard of the batch from example b on has ``first_index = b n``.
        temperature, gamma, zeta, bound, uniform_eps: as in :func:`l0fast.ops.hard_concrete`.

    Returns:
        z of the dtype of log_alpha, in [0, 1]. Only log_alpha and seed are kept for backward, whose sum over the batch
        is added up in float64.

    Raises:
        TypeError: log_alpha or seed is of another type or dtype, seed is None, or batch is no int.
        ValueError: batch, temperature, gamma, zeta, stream or first_index is out of range.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 4 (one draw per example); DESIGN 4.
    """
    check_floating("log_alpha", log_alpha)
    if seed is None:
        raise TypeError("seed: expected an int64 tensor of one element, got None")
    check_seed(seed, log_alpha)
    if isinstance(batch, bool) or not isinstance(batch, int):
        raise TypeError(f"batch: expected an int, got {type(batch).__name__}")
    if batch < 0:
        raise ValueError(f"batch: expected at least 0, got {batch}")
    check_gate(temperature, gamma, zeta, bound)
    check_noise(stream, first_index, uniform_eps)
    if not kernel_for(log_alpha):
        return reference.batch_gates(
            *(log_alpha, seed, batch),
            stream=stream,
            first_index=first_index,
            temperature=temperature,
            gamma=gamma,
            zeta=zeta,
            bound=bound,
            uniform_eps=uniform_eps,
        )
    scalars = (stream, first_index, temperature, gamma, zeta, bound, uniform_eps)
    log_alpha = log_alpha.contiguous()
    if needs_gradient(log_alpha):
        return _BatchGates.apply(log_alpha, seed, batch, scalars)
    return torch.ops.l0fast.batch_gates(log_alpha, seed, batch, *scalars)


class _BatchGates(torch.autograd.Function):
    @staticmethod
    def forward(log_alpha, seed, batch, scalars):
        return torch.ops.l0fast.batch_gates(log_alpha, seed, batch, *scalars)

    @staticmethod
    def setup_context(ctx, inputs, output):
        log_alpha, seed, ctx.batch, ctx.scalars = inputs
        ctx.save_for_backward(log_alpha, seed)

    @staticmethod
    def backward(ctx, grad_z):
        log_alpha, seed = ctx.saved_tensors

        def kernel(log_alpha, grad_z):
            return (torch.ops.l0fast.batch_gates_backward(grad_z.contiguous(), log_alpha, seed, *ctx.scalars),)

        def forward(log_alpha):
            return (reference.batch_gates(log_alpha, seed, ctx.batch, **named(ctx.scalars)),)

        return *gradients(kernel, forward, (log_alpha,), (grad_z,)), None, None, None


@fake("batch_gates")
def _(log_alpha, seed, batch, *scalars):
    return log_alpha.new_empty((batch, *log_alpha.shape))


@fake("batch_gates_backward")
def _(grad_z, log_alpha, seed, *scalars):
    return torch.empty_like(log_alpha)
