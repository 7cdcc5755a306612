"""Whole epochs of calibration in one call. Kernels: calibration_epochs in csrc/cpu and csrc/cuda."""

import math

import torch
from torch import Tensor

from .. import _load, reference
from .. import constants as c
from ._calibration import check_link_and_shrinkage, check_non_negative, check_records
from ._common import check_gate, check_like, check_noise, check_placed, check_real, check_seed, fake


def calibration_epochs_(
    log_weight: Tensor,
    log_alpha: Tensor,
    weight_exp_avg: Tensor,
    weight_exp_avg_sq: Tensor,
    alpha_exp_avg: Tensor,
    alpha_exp_avg_sq: Tensor,
    indptr: Tensor,
    rows: Tensor,
    values: Tensor,
    targets: Tensor,
    scales: Tensor,
    omega: Tensor,
    tolerances: Tensor | None,
    anchor: Tensor | None,
    seed: Tensor,
    *,
    bias: Tensor | None = None,
    bias_exp_avg: Tensor | None = None,
    bias_exp_avg_sq: Tensor | None = None,
    low: Tensor | None = None,
    high: Tensor | None = None,
    rho: int = c.RHO_SQUARE,
    cap: float = math.inf,
    first_epoch: int = 0,
    epochs: int = 1,
    first_index: int = 0,
    link: int = c.LINK_EXP,
    gates: bool = True,
    temperature: float = c.BETA,
    gamma: float = c.GAMMA,
    zeta: float = c.ZETA,
    bound: float = c.LOG_ALPHA_BOUND,
    lambda_l0: float = 0.0,
    lambda_l2: float = 0.0,
    lambda_l1: float = 0.0,
    lr: float = 0.01,
) -> Tensor:
    """Runs epochs of forward, residual, backward and Adam in place on the first six tensors, and on the bias if any.

    Each epoch draws gates from (seed, stream = epoch), so that a run split into chunks, with ``first_epoch`` carried
    on, gives the very same bits. ``loss = sum omega rho((M w + bias - targets) / scales) + lambda_l0 sum p +
    lambda_l2 sum (v / anchor)^2`` with ``w = v z`` and ``v = exp(log_weight)``, or ``v = log_weight`` under
    LINK_IDENTITY. After Adam's step log_weight is restricted: with ``s = sqrt(v_hat) + epsilon``, Adam's own scale of a
    record's steps, ``lambda_l1`` takes ``lr lambda_l1 / s`` from its size and stops at 0 (the proximal step of
    ``lambda_l1 sum |log_weight|`` in that metric: weights become exactly 0), and then it is held to [low, high].

    Args:
        log_weight, log_alpha: [n_records] float32 or float64, contiguous.
        weight_exp_avg, weight_exp_avg_sq, alpha_exp_avg, alpha_exp_avg_sq: [n_records] Adam's moments.
        indptr, rows, values: M in compressed columns, as in :func:`l0fast.ops.gated_totals`.
        targets, scales, omega: [n_targets] float64; scales are not 0.
        tolerances: [n_targets] float64 or None, for RHO_EPSILON_SQUARE.
        anchor: [n_records] positive, or None for 1.
        seed: int64 tensor of one element.
        bias, bias_exp_avg, bias_exp_avg_sq: [1] of the dtype of log_weight, contiguous, or None for no bias: one number
            added to every total, trained with Adam, without gate, noise or penalty.
        low, high: [n_records] of the dtype of log_weight, or None for no bound, with low <= high. They bound log_weight
            itself: under LINK_EXP they are logarithms. Infinities bound nothing.
        rho: RHO_SQUARE x^2, RHO_EPSILON_SQUARE max(|x| - tolerance, 0)^2, RHO_CAPPED_ABSOLUTE min(|x|, cap).
        first_epoch: epochs already done: the stream of the noise and Adam's step count continue from it.
        epochs: how many to run.
        first_index, link, gates, temperature, gamma, zeta, bound: as in :func:`l0fast.ops.gated_totals`.
        lambda_l0, lambda_l2, lr: non-negative.
        lambda_l1: non-negative; 0 unless link is LINK_IDENTITY.

    Returns:
        [epochs, 4] float64: data loss, sum p, sum of squares (0 if lambda_l2 is 0), open gates; of the parameters
        before each epoch's step. If a data loss is not finite the run ends before that step: later rows are NaN.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, device, shape or range, by name.
        RuntimeError: an index in indptr or rows is out of order or range; on CUDA also a value that is not finite, and
            a stream that is being captured.

    Source: DESIGN 3 and 6; Adam: Kingma, Ba 2015, algorithm 1; proximal steps in a metric: Duchi, Hazan, Singer 2011
    (AdaGrad), section 5.1.
    """
    state = {
        "log_alpha": log_alpha,
        "weight_exp_avg": weight_exp_avg,
        "weight_exp_avg_sq": weight_exp_avg_sq,
        "alpha_exp_avg": alpha_exp_avg,
        "alpha_exp_avg_sq": alpha_exp_avg_sq,
    }
    bounds = {"low": low, "high": high}
    check_records(log_weight, state, bounds)
    intercept = {"bias": bias, "bias_exp_avg": bias_exp_avg, "bias_exp_avg_sq": bias_exp_avg_sq}
    _check_bias(intercept, log_weight)
    check_seed(seed, log_weight)
    check_gate(temperature, gamma, zeta, bound)
    check_noise(first_epoch, first_index)
    check_non_negative(lambda_l0=lambda_l0, lambda_l2=lambda_l2, lambda_l1=lambda_l1, lr=lr, epochs=epochs)
    check_link_and_shrinkage(link, lambda_l1)
    matrix = {"indptr": indptr, "rows": rows, "values": values}
    objective = {"targets": targets, "scales": scales, "omega": omega, "tolerances": tolerances, "anchor": anchor}
    check_placed("log_weight", log_weight, **matrix, **objective)
    problem = (*matrix.values(), *objective.values())
    if not _load.native_for(log_weight):
        return reference.calibration_epochs_(
            *(log_weight, *state.values(), *problem, seed),
            **intercept,
            **bounds,
            rho=rho,
            cap=cap,
            first_epoch=first_epoch,
            epochs=epochs,
            first_index=first_index,
            link=link,
            gates=gates,
            temperature=temperature,
            gamma=gamma,
            zeta=zeta,
            bound=bound,
            lambda_l0=lambda_l0,
            lambda_l2=lambda_l2,
            lambda_l1=lambda_l1,
            lr=lr,
        )
    mutable = [log_weight, *state.values(), *intercept.values()]
    detached = [None if tensor is None else tensor.detach() for tensor in mutable]
    metrics = torch.ops.l0fast.calibration_epochs_(
        *(*detached, *problem, *bounds.values(), rho, cap, seed, first_epoch, epochs, first_index, link),
        *(gates, temperature, gamma, zeta, bound, c.UNIFORM_EPS, lambda_l0, lambda_l2, lambda_l1, lr),
        *(c.ADAM_BETA1, c.ADAM_BETA2, c.ADAM_EPSILON),
    )
    # The kernel writes through raw pointers; autograd must know that what it saved has changed.
    torch.autograd.graph.increment_version([tensor for tensor in mutable if tensor is not None])
    return metrics


def _check_bias(intercept: dict[str, Tensor | None], log_weight: Tensor) -> None:
    given = [name for name, tensor in intercept.items() if tensor is not None]
    if 0 < len(given) < len(intercept):
        missing = next(name for name in intercept if name not in given)
        raise ValueError(f"{missing}: expected it along with {given[0]}, got None")
    for name in given:
        check_real(name, intercept[name])
        if intercept[name].shape != (1,):
            raise ValueError(f"{name}: expected shape [1], got {list(intercept[name].shape)}")
        check_like(name, intercept[name], "log_weight", log_weight.new_empty(1))


@fake("calibration_epochs_")
def _(log_weight, *rest):
    epochs = rest[22]  # after 5 state, 3 bias, 8 problem tensors, 2 bounds, rho, cap, seed and first_epoch
    return log_weight.new_empty((epochs, 4), dtype=torch.float64)
