"""One epoch of calibration whose residuals come from outside. Kernels: calibration_step in csrc/cpu and csrc/cuda."""

import torch
from torch import Tensor

from .. import _load, reference
from .. import constants as c
from ._calibration import check_link_and_shrinkage, check_non_negative, check_records
from ._common import check_gate, check_noise, check_placed, check_seed, fake


def calibration_step_(
    log_weight: Tensor,
    log_alpha: Tensor,
    weight_exp_avg: Tensor,
    weight_exp_avg_sq: Tensor,
    alpha_exp_avg: Tensor,
    alpha_exp_avg_sq: Tensor,
    gate: Tensor,
    indptr: Tensor,
    rows: Tensor,
    values: Tensor,
    n_targets: int,
    slopes: Tensor | None,
    anchor: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    seed: Tensor,
    *,
    epoch: int = 0,
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
) -> tuple[Tensor, Tensor]:
    """The backward half of one epoch and the forward half of the next, around a loss that the caller computes.

    An epoch of :func:`l0fast.ops.calibration_epochs_` with its middle taken out: a first call with ``slopes=None``
    draws the gates of ``epoch`` and returns their totals ``M w``; the caller turns totals into a loss and its
    ``slopes = dloss/dtotals``; each further call takes them, does the step of that epoch (L0, L2, Adam's step number
    epoch + 1, shrinkage by lambda_l1, bounds), and returns the totals of the gates of epoch + 1, which it has drawn
    into ``gate`` on the way. The matrix is read once a call for both halves. With the slopes of the same loss the
    parameters are those of calibration_epochs_, bit for bit on the CPU.

    Args:
        log_weight, log_alpha: [n_records] float32 or float64, contiguous; changed in place.
        weight_exp_avg, weight_exp_avg_sq, alpha_exp_avg, alpha_exp_avg_sq: [n_records] Adam's moments; changed too.
        gate: [n_records] of the dtype of log_weight, contiguous: z. With slopes it holds the gates of ``epoch``, as the
            call before left them; it leaves with those of the totals returned.
        indptr, rows, values, n_targets: M in compressed columns, as in :func:`l0fast.ops.gated_totals`.
        slopes: [n_targets] float64, dloss/dtotals at the gates in ``gate``, contiguous; None for no step.
        anchor: [n_records] positive, or None for 1.
        low, high: [n_records], as in :func:`l0fast.ops.calibration_epochs_`, or None.
        seed: int64 tensor of one element.
        epoch: of the step, or without slopes of the draw: the stream of the noise, and Adam's steps already done.
        first_index, link, gates, temperature, gamma, zeta, bound: as in :func:`l0fast.ops.gated_totals`.
        lambda_l0, lambda_l2, lambda_l1, lr: as in :func:`l0fast.ops.calibration_epochs_`.

    Returns:
        (totals [n_targets] float64, sums [3] float64): sum p and sum of (v / anchor)^2 before the step (0 without a
        step; the latter 0 if lambda_l2 is 0), and the number of open gates of the new draw.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, device, shape or range, by name.
        RuntimeError: an index in indptr or rows is out of order or range; on CUDA also a value that is not finite, and
            a stream that is being captured.

    Source: DESIGN 3 and 6; Adam: Kingma, Ba 2015, algorithm 1.
    """
    state = {
        "log_alpha": log_alpha,
        "weight_exp_avg": weight_exp_avg,
        "weight_exp_avg_sq": weight_exp_avg_sq,
        "alpha_exp_avg": alpha_exp_avg,
        "alpha_exp_avg_sq": alpha_exp_avg_sq,
        "gate": gate,
    }
    check_records(log_weight, state, {"anchor": anchor, "low": low, "high": high})
    check_seed(seed, log_weight)
    check_gate(temperature, gamma, zeta, bound)
    check_noise(epoch, first_index)
    check_non_negative(lambda_l0=lambda_l0, lambda_l2=lambda_l2, lambda_l1=lambda_l1, lr=lr, n_targets=n_targets)
    check_link_and_shrinkage(link, lambda_l1)
    matrix = {"indptr": indptr, "rows": rows, "values": values}
    check_placed("log_weight", log_weight, **matrix, slopes=slopes)
    if slopes is not None:
        _check_slopes(slopes, n_targets)
    problem = (*matrix.values(), n_targets, slopes, anchor, low, high, seed)
    if not _load.native_for(log_weight):
        return reference.calibration_step_(
            *(log_weight, *state.values(), *problem),
            epoch=epoch,
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
    mutable = [log_weight, *state.values()]
    results = torch.ops.l0fast.calibration_step_(
        *(*(tensor.detach() for tensor in mutable), *problem, epoch, first_index, link),
        *(gates, temperature, gamma, zeta, bound, c.UNIFORM_EPS, lambda_l0, lambda_l2, lambda_l1, lr),
        *(c.ADAM_BETA1, c.ADAM_BETA2, c.ADAM_EPSILON),
    )
    # The kernel writes through raw pointers; autograd must know that what it saved has changed.
    torch.autograd.graph.increment_version([gate] if slopes is None else mutable)
    return results


def _check_slopes(slopes: Tensor, n_targets: int) -> None:
    if slopes.dtype != torch.float64:
        raise TypeError(f"slopes: expected float64, got {str(slopes.dtype).removeprefix('torch.')}")
    if slopes.shape != (n_targets,):
        raise ValueError(f"slopes: expected shape [{n_targets}], got {list(slopes.shape)}")


@fake("calibration_step_")
def _(log_weight, *rest):
    n_targets = rest[9]  # after 5 state tensors, gate and 3 of the matrix
    return log_weight.new_empty(n_targets, dtype=torch.float64), log_weight.new_empty(3, dtype=torch.float64)
