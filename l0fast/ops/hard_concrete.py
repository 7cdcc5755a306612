"""Hard Concrete gates. Kernels: hard_concrete in csrc/cpu and csrc/cuda."""

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


def hard_concrete(
    log_alpha: Tensor,
    seed: Tensor | None = None,
    *,
    stream: int = 0,
    first_index: int = 0,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
    eval_temperature: bool = True,
    uniform_eps: float = c.UNIFORM_EPS,
) -> Tensor:
    r"""Gates z, sampled with a seed and deterministic without one.

    ``a = clamp(log_alpha, -20, 20)``, ``u = uniform_at(seed, stream, i)`` held to [1e-6, 1 - 1e-6],
    ``s = sigmoid((log u - log(1 - u) + a) / temperature)``, or ``sigmoid(a / temperature)`` without a seed, and
    ``z = clamp(s (zeta - gamma) + gamma, 0, 1)``.

    Args:
        log_alpha: float16, bfloat16, float32 or float64 of any shape; arithmetic is in float32 (float64 for float64).
        seed: int64 tensor of one element on the same device; None for the deterministic gate.
        stream: number of the draw (an epoch, a call), 0 <= stream < 2^32.
        first_index: global index of the first element, where this tensor is a shard.
        temperature: beta > 0.
        gamma: below 0.
        zeta: above 1.
        bound: log_alpha is held to [-bound, bound].
        eval_temperature: False leaves beta out of the deterministic gate, as the original authors' code does.
        uniform_eps: u is held to [uniform_eps, 1 - uniform_eps].

    Returns:
        z, of the shape and dtype of ``log_alpha``, in [0, 1]. Backward draws the noise again; only ``log_alpha`` and
        ``seed`` are kept for it.

    Raises:
        TypeError: log_alpha or seed is of another type or dtype.
        ValueError: temperature, gamma, zeta, stream or first_index is out of range.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), equations 10 to 12; noise: DESIGN 4.
    """
    check_floating("log_alpha", log_alpha)
    check_seed(seed, log_alpha)
    check_gate(temperature, gamma, zeta, bound)
    check_noise(stream, first_index, uniform_eps)
    if not kernel_for(log_alpha):
        return reference.hard_concrete(
            log_alpha,
            seed,
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
    log_alpha = log_alpha.contiguous()
    if needs_gradient(log_alpha):
        return _HardConcrete.apply(log_alpha, seed, scalars)
    return torch.ops.l0fast.hard_concrete(log_alpha, seed, *scalars)


class _HardConcrete(torch.autograd.Function):
    @staticmethod
    def forward(log_alpha, seed, scalars):
        return torch.ops.l0fast.hard_concrete(log_alpha, seed, *scalars)

    @staticmethod
    def setup_context(ctx, inputs, output):
        log_alpha, seed, ctx.scalars = inputs
        ctx.save_for_backward(log_alpha, seed)

    @staticmethod
    def backward(ctx, grad_z):
        log_alpha, seed = ctx.saved_tensors

        def kernel(log_alpha, grad_z):
            return (torch.ops.l0fast.hard_concrete_backward(grad_z.contiguous(), log_alpha, seed, *ctx.scalars),)

        def forward(log_alpha):
            return (reference.hard_concrete(log_alpha, seed, **named(ctx.scalars)),)

        return *gradients(kernel, forward, (log_alpha,), (grad_z,)), None, None


@fake("hard_concrete")
def _(log_alpha, seed, *scalars):
    return torch.empty_like(log_alpha)


@fake("hard_concrete_backward")
def _(grad_z, log_alpha, seed, *scalars):
    return torch.empty_like(log_alpha)
