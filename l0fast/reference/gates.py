"""Noise, gates and their penalty. Twins of csrc/math/philox.h and csrc/math/hard_concrete.h."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import constants as c

_MASK = 0xFFFFFFFF


def _multiply_words(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product. int64 wraps around, which leaves both words right."""
    product = x * factor
    return (product >> 32) & _MASK, product & _MASK


def uniform_at(seed: Tensor, stream: int, first_index: int, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Philox4x32-10 noise of the elements ``first_index .. first_index + count - 1``. Twin of csrc/math/philox.h.

    Returns a tensor of shape [count] with values ``((word >> 9) + 1/2) 2^-23``.
    """
    index = torch.arange(first_index, first_index + count, dtype=torch.int64, device=seed.device)
    block = index >> 2
    c0, c1 = block & _MASK, (block >> 32) & _MASK
    c2, c3 = torch.full_like(block, stream), torch.zeros_like(block)
    key = seed.reshape(())
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _multiply_words(c0, 0xD2511F53)
        high1, low1 = _multiply_words(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    word = torch.stack([c0, c1, c2, c3]).gather(0, (index & 3).unsqueeze(0)).squeeze(0)
    return ((word >> 9).to(dtype) + 0.5) * 2.0**-23


def arithmetic(x: Tensor) -> Tensor:
    """x in the dtype that is computed with: float32 for the 16-bit types, else its own."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
    a = arithmetic(log_alpha).clamp(-bound, bound)
    if seed is None:
        s = torch.sigmoid(a / temperature if eval_temperature else a)
    else:
        u = uniform_at(seed, stream, first_index, a.numel(), a.dtype).view(a.shape)
        u = u.clamp(uniform_eps, 1 - uniform_eps)
        s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + a) / temperature)
    return (s * (zeta - gamma) + gamma).clamp(0, 1).to(log_alpha.dtype)


def active_probability(
    log_alpha: Tensor,
    *,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
) -> Tensor:
    """P(z != 0) of each gate."""
    a = arithmetic(log_alpha).clamp(-bound, bound)
    return torch.sigmoid(a - temperature * math.log(-gamma / zeta)).to(log_alpha.dtype)


def l0_penalty(
    log_alpha: Tensor,
    *,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
) -> Tensor:
    shape = {"temperature": temperature, "gamma": gamma, "zeta": zeta, "bound": bound}
    return active_probability(arithmetic(log_alpha), **shape).sum()


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
    repeated = log_alpha.expand(batch, *log_alpha.shape)
    shape = {"temperature": temperature, "gamma": gamma, "zeta": zeta, "bound": bound}
    return hard_concrete(repeated, seed, stream=stream, first_index=first_index, uniform_eps=uniform_eps, **shape)


def l0_penalties(
    log_alphas: Sequence[Tensor],
    temperatures: Sequence[float],
    gammas: Sequence[float],
    zetas: Sequence[float],
    bound: float = c.LOG_ALPHA_BOUND,
    uniform_eps: float = c.UNIFORM_EPS,
) -> Tensor:
    shapes = zip(log_alphas, temperatures, gammas, zetas, strict=True)
    return torch.stack([l0_penalty(x, temperature=t, gamma=g, zeta=z, bound=bound) for x, t, g, z in shapes]).sum()
