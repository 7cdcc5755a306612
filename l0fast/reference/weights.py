"""Gated weights and the totals they give."""

import torch
from torch import Tensor

from .. import constants as c
from .gates import arithmetic, hard_concrete, l0_penalty


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
    shape = {"temperature": temperature, "gamma": gamma, "zeta": zeta, "bound": bound}
    noise = {
        "stream": stream,
        "first_index": first_index,
        "eval_temperature": eval_temperature,
        "uniform_eps": uniform_eps,
    }
    z = hard_concrete(arithmetic(log_alpha), seed, **noise, **shape)
    spread = weight.shape if dim is None else [-1 if d == dim % weight.dim() else 1 for d in range(weight.dim())]
    penalty = l0_penalty(log_alpha, **shape) if with_penalty else arithmetic(weight).new_zeros(())
    return (arithmetic(weight) * z.reshape(spread)).to(weight.dtype), penalty


def linked(log_weight: Tensor, link: int) -> Tensor:
    """The weight before its gate. Twin of csrc/math/link.h."""
    return torch.exp(log_weight) if link == c.LINK_EXP else log_weight


def gated_totals(
    log_weight: Tensor,
    log_alpha: Tensor,
    indptr: Tensor,
    rows: Tensor,
    values: Tensor,
    n_targets: int,
    seed: Tensor | None = None,
    *,
    stream: int = 0,
    first_index: int = 0,
    link: int = c.LINK_EXP,
    gates: bool = True,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
    eval_temperature: bool = True,
) -> tuple[Tensor, Tensor]:
    shape = {"temperature": temperature, "gamma": gamma, "zeta": zeta, "bound": bound}
    weight = linked(log_weight, link)
    if gates:
        noise = {"stream": stream, "first_index": first_index, "eval_temperature": eval_temperature}
        weight = weight * hard_concrete(log_alpha, seed, **noise, **shape)
    return column_totals(weight, indptr, rows, values, n_targets), l0_penalty(log_alpha, **shape)


def column_totals(weight: Tensor, indptr: Tensor, rows: Tensor, values: Tensor, n_targets: int) -> Tensor:
    """M w for M [n_targets, n_records] in compressed columns and any weight [n_records]."""
    terms = values * torch.repeat_interleave(weight, indptr.diff())
    return terms.new_zeros(n_targets).index_add(0, rows.to(torch.int64), terms)
