"""The calibration losses and the epochs that train on them, with autograd and torch.optim.Adam itself."""

import math

import torch
from torch import Tensor

from .. import constants as c
from .gates import hard_concrete
from .weights import column_totals, gated_totals, linked


def data_loss(
    totals: Tensor,
    targets: Tensor,
    scales: Tensor,
    omega: Tensor,
    tolerances: Tensor | None,
    rho: int,
    cap: float,
) -> Tensor:
    """sum omega rho((totals - targets) / scales). Twin of csrc/math/objective.h."""
    x = (totals - targets) / scales
    if rho == c.RHO_SQUARE:
        value = x**2
    elif rho == c.RHO_EPSILON_SQUARE:
        value = (x.abs() - (0 if tolerances is None else tolerances)).clamp(min=0) ** 2
    else:
        value = x.abs().clamp(max=cap)
    return (omega * value).sum()


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
    trained = [log_weight, log_alpha, *([] if bias is None else [bias])]
    moments = [(weight_exp_avg, weight_exp_avg_sq), (alpha_exp_avg, alpha_exp_avg_sq)]
    moments += [] if bias is None else [(bias_exp_avg, bias_exp_avg_sq)]
    shape = {"temperature": temperature, "gamma": gamma, "zeta": zeta, "bound": bound}
    matrix = (indptr, rows, values, targets.numel())
    metrics = torch.full((epochs, 4), math.nan, dtype=torch.float64, device=log_weight.device)
    for k in range(epochs):
        parameters = [tensor.detach().requires_grad_() for tensor in trained]  # share memory with the arguments
        noise = {"stream": first_epoch + k, "first_index": first_index}
        with torch.enable_grad():
            totals, penalty = gated_totals(*parameters[:2], *matrix, seed, link=link, gates=gates, **noise, **shape)
            totals = totals.double() + (0 if bias is None else parameters[2])
            data = data_loss(totals, targets, scales, omega, tolerances, rho, cap)
            ratio = linked(parameters[0], link) / (1 if anchor is None else anchor)
            squares = (ratio**2).sum() if lambda_l2 else ratio.new_zeros(())
            loss = data + lambda_l0 * penalty + lambda_l2 * squares
        open_gates = hard_concrete(log_alpha, seed, **noise, **shape).count_nonzero() if gates else len(log_alpha)
        metrics[k, 0] = data.detach()
        if not torch.isfinite(data):
            break
        loss.backward()
        adam_step(parameters, moments, first_epoch + k, lr)
        restrict_(log_weight, weight_exp_avg_sq, low, high, first_epoch + k, lambda_l1, lr)
        metrics[k, 1], metrics[k, 2], metrics[k, 3] = penalty.detach(), squares.detach(), open_gates
    return metrics


@torch.no_grad()
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
    shape = {"temperature": temperature, "gamma": gamma, "zeta": zeta, "bound": bound}
    matrix = (indptr, rows, values, n_targets)
    sums = torch.zeros(3, dtype=torch.float64, device=log_weight.device)
    if slopes is not None:
        parameters = [tensor.detach().requires_grad_() for tensor in (log_weight, log_alpha)]  # share memory
        moments = [(weight_exp_avg, weight_exp_avg_sq), (alpha_exp_avg, alpha_exp_avg_sq)]
        with torch.enable_grad():
            noise = {"stream": epoch, "first_index": first_index}
            totals, penalty = gated_totals(*parameters, *matrix, seed, link=link, gates=gates, **noise, **shape)
            ratio = linked(parameters[0], link) / (1 if anchor is None else anchor)
            squares = (ratio**2).sum() if lambda_l2 else ratio.new_zeros(())
            # slopes are dloss/dtotals: this has the gradient of the loss, whatever the loss is.
            ((totals.double() * slopes).sum() + lambda_l0 * penalty + lambda_l2 * squares).backward()
        sums[0], sums[1] = penalty.detach(), squares.detach()
        adam_step(parameters, moments, epoch, lr)
        restrict_(log_weight, weight_exp_avg_sq, low, high, epoch, lambda_l1, lr)
        epoch += 1
    noise = {"stream": epoch, "first_index": first_index}
    gate.copy_(hard_concrete(log_alpha, seed, **noise, **shape) if gates else torch.ones_like(log_alpha))
    totals = column_totals((linked(log_weight, link) * gate).double(), indptr, rows, values.double(), n_targets)
    sums[2] = gate.count_nonzero()
    return totals, sums


def adam_step(parameters: list[Tensor], moments: list[tuple[Tensor, Tensor]], epoch: int, lr: float) -> None:
    """torch.optim.Adam's step number epoch + 1 from the parameters' gradients; the moments are updated in place."""
    adam = torch.optim.Adam(parameters, lr=lr, betas=(c.ADAM_BETA1, c.ADAM_BETA2), eps=c.ADAM_EPSILON)
    for parameter, (first, second) in zip(parameters, moments, strict=True):
        adam.state[parameter] = {"step": torch.tensor(float(epoch)), "exp_avg": first, "exp_avg_sq": second}
    adam.step()


@torch.no_grad()
def restrict_(
    log_weight: Tensor,
    second: Tensor,
    low: Tensor | None,
    high: Tensor | None,
    epoch: int,
    lambda_l1: float,
    lr: float,
) -> None:
    """What follows Adam's step: shrinkage by lambda_l1 in Adam's own metric, then the bounds. Twin of
    csrc/math/calibration_step.h."""
    if lambda_l1:
        scale = (second / (1 - c.ADAM_BETA2 ** (epoch + 1))).sqrt() + c.ADAM_EPSILON
        log_weight.copy_(log_weight.sign() * (log_weight.abs() - lr * lambda_l1 / scale).clamp(min=0))
    if low is not None:
        log_weight.copy_(torch.maximum(log_weight, low))
    if high is not None:
        log_weight.copy_(torch.minimum(log_weight, high))
