"""The specification in plain torch: what each op computes, with the names and arguments of l0fast/ops.

Any floating dtype, any device, ordinary autograd. It is the fallback where no kernel is at hand, the truth (in float64)
that kernels are compared with, and the place to read the formulas (DESIGN 3 and 4).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import constants as c

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
    lr: float = 0.01,
) -> Tensor:
    """The epochs with autograd and torch.optim.Adam itself, whose moments are the tensors passed in."""
    trained = [log_weight, log_alpha, *([] if bias is None else [bias])]
    parameters = [tensor.detach() for tensor in trained]  # share memory with the arguments
    for parameter in parameters:
        parameter.requires_grad_()
    adam = torch.optim.Adam(parameters, lr=lr, betas=(c.ADAM_BETA1, c.ADAM_BETA2), eps=c.ADAM_EPSILON)
    moments = [
        (weight_exp_avg, weight_exp_avg_sq),
        (alpha_exp_avg, alpha_exp_avg_sq),
        (bias_exp_avg, bias_exp_avg_sq),
    ]
    for parameter, (first, second) in zip(parameters, moments, strict=False):
        step = torch.tensor(float(first_epoch))
        adam.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    shape = {"temperature": temperature, "gamma": gamma, "zeta": zeta, "bound": bound}
    metrics = torch.full((epochs, 4), math.nan, dtype=torch.float64, device=log_weight.device)
    for k in range(epochs):
        with torch.enable_grad():
            noise = {"stream": first_epoch + k, "first_index": first_index}
            matrix = (indptr, rows, values, targets.numel())
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
        adam.zero_grad()
        loss.backward()
        adam.step()
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


def restrict_(
    log_weight: Tensor,
    second: Tensor,
    low: Tensor | None,
    high: Tensor | None,
    epoch: int,
    lambda_l1: float,
    lr: float,
) -> None:
    """What follows Adam's step: shrinkage by lambda_l1 in Adam's own metric, then the bounds. Twin of math/adam.h."""
    if lambda_l1:
        scale = (second / (1 - c.ADAM_BETA2 ** (epoch + 1))).sqrt() + c.ADAM_EPSILON
        log_weight.copy_(log_weight.sign() * (log_weight.abs() - lr * lambda_l1 / scale).clamp(min=0))
    if low is not None:
        log_weight.copy_(torch.maximum(log_weight, low))
    if high is not None:
        log_weight.copy_(torch.minimum(log_weight, high))
