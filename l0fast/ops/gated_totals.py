"""Gated weights and their totals M w. Kernels: gated_totals in csrc/cpu and csrc/cuda."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import constants as c
from .. import reference
from ._common import (
    check_gate,
    check_like,
    check_link,
    check_noise,
    check_placed,
    check_real,
    check_seed,
    fake,
    kernel_for,
    needs_gradient,
)


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
    """``M w`` with ``w = exp(log_weight) z`` or ``log_weight z``, and the L0 penalty, in one pass over the records.

    Where most gates are closed, a closed record costs no work on its column, forward or backward, with no
    approximation: its weight and both of its matrix gradients are exactly 0. (In a block of 1,024 records of which
    half or more are open, its zeros ride along in one stream, which is cheaper than picking out the others.)

    Args:
        log_weight: [n_records] float32 or float64; with LINK_IDENTITY the weight before its gate, of either sign.
        log_alpha: [n_records], same dtype.
        indptr: [n_records + 1] int64, where each column of M begins.
        rows: [nnz] uint16 or int32, the target of each nonzero.
        values: [nnz], dtype of log_weight. M itself gets no gradient.
        n_targets: number of rows of M.
        seed: as in :func:`l0fast.ops.hard_concrete`; None for deterministic gates.
        stream, first_index, temperature, gamma, zeta, bound, eval_temperature: as in :func:`l0fast.ops.hard_concrete`.
        link: LINK_EXP for w = exp(log_weight) z, LINK_IDENTITY for w = log_weight z.
        gates: False for z = 1.

    Returns:
        (totals [n_targets], penalty scalar), both of the dtype of log_weight; totals are summed in float64.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, device, shape or range, by name.
        RuntimeError: an index in indptr or rows is out of order or range; on CUDA also a value that is not finite, and
            a stream that is being captured.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 2.2; DESIGN 3.
    """
    check_real("log_weight", log_weight)
    if log_weight.dim() != 1:
        raise ValueError(f"log_weight: expected one dimension, got shape {list(log_weight.shape)}")
    check_like("log_alpha", log_alpha, "log_weight", log_weight)
    check_seed(seed, log_weight)
    check_gate(temperature, gamma, zeta, bound)
    check_noise(stream, first_index)
    check_link(link)
    check_placed("log_weight", log_weight, indptr=indptr, rows=rows, values=values)
    if values.dtype != log_weight.dtype:
        raise TypeError(f"values: expected {log_weight.dtype} as log_weight has, got {values.dtype}")
    if not kernel_for(log_weight):
        return reference.gated_totals(
            *(log_weight, log_alpha, indptr, rows, values, n_targets, seed),
            stream=stream,
            first_index=first_index,
            link=link,
            gates=gates,
            temperature=temperature,
            gamma=gamma,
            zeta=zeta,
            bound=bound,
            eval_temperature=eval_temperature,
        )
    scalars = (
        *(stream, first_index, link, gates, temperature, gamma, zeta),
        *(bound, c.UNIFORM_EPS, eval_temperature),
    )
    tensors = (log_weight.contiguous(), log_alpha.contiguous(), indptr, rows, values)
    if needs_gradient(log_weight, log_alpha):
        return _GatedTotals.apply(*tensors, n_targets, seed, scalars)
    return torch.ops.l0fast.gated_totals(*tensors, n_targets, seed, *scalars)


class _GatedTotals(torch.autograd.Function):
    @staticmethod
    def forward(log_weight, log_alpha, indptr, rows, values, n_targets, seed, scalars):
        return torch.ops.l0fast.gated_totals(log_weight, log_alpha, indptr, rows, values, n_targets, seed, *scalars)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, _, seed, ctx.scalars = inputs
        ctx.save_for_backward(*tensors, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_totals, grad_penalty):
        *tensors, seed = ctx.saved_tensors
        grads = torch.ops.l0fast.gated_totals_backward(
            grad_totals.contiguous(), grad_penalty, *tensors, seed, *ctx.scalars
        )
        return *grads, None, None, None, None, None, None


@fake("gated_totals")
def _(log_weight, log_alpha, indptr, rows, values, n_targets, seed, *scalars):
    return log_weight.new_empty(n_targets), log_weight.new_empty(())


@fake("gated_totals_backward")
def _(grad_totals, grad_penalty, log_weight, log_alpha, indptr, rows, values, seed, *scalars):
    return torch.empty_like(log_weight), torch.empty_like(log_alpha)
