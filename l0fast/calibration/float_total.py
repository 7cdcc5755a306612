"""A sum of rounded weights that is right to 1e-9: single weights move by a few of their smallest steps.

Weights are exponentials of float32 parameters: the next weight is about 1e-7 of it away, and for a large weight as far
as the next parameter takes it. With many records the errors of rounding nearly cancel and one move puts the rest right;
with few, the steps of two records that differ in size are combined. What cannot be helped is half the distance of
neighbouring float32 numbers at the smallest weight that may move: below 1e-9 of the total from about 100 records on.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

WITHIN = 1e-9
"""Share of the total that the sum may miss without a warning."""
AIM = 1e-11
"""Share of the total at which there is nothing left to repair."""
FEW, STEPS = 24, 32
"""Records that are combined, and how many steps each may move."""


def repair_total(log_weight: Tensor, records: Tensor, low: Tensor, high: Tensor, total: float) -> None:
    """Moves log_weight [n] at the records (int64 [k]) in place, within low and high [k], so that exp sums to total.

    The sum is that in float64 of ``torch.exp(log_weight)[records]``. Warns where it ends further than 1e-9 away.
    """
    best, least = log_weight[records], abs(_missing(log_weight, records, total))
    for repair in (_one_step_each, _two_records, _one_step_each, _two_records):
        if least <= AIM * total:
            break
        with torch.no_grad():
            log_weight[records] = repair(best, low, high, _missing(log_weight, records, total))
        missing = abs(_missing(log_weight, records, total))
        if missing < least:
            best, least = log_weight[records], missing
        with torch.no_grad():
            log_weight[records] = best
    if least > WITHIN * total:
        warnings.warn(
            f"mass: float32 weights of {len(records):,} records within their bounds come no closer than "
            f"{total - _missing(log_weight, records, total):.12g} to {total:.12g}",
            RuntimeWarning,
            stacklevel=6,
        )


def _missing(log_weight: Tensor, records: Tensor, total: float) -> float:
    weights = torch.exp(log_weight.detach())[records].double().cpu().numpy()
    return total - float(weights.sum())


def neighbour(theta: Tensor, limit: Tensor, up: bool) -> Tensor:
    """The parameter of the next larger (up) or smaller weight, not beyond limit."""
    end = torch.full_like(theta, torch.inf if up else -torch.inf)
    # Near 0 parameters lie closer than weights: there it is the weight that takes the step.
    there = torch.log(torch.nextafter(torch.exp(theta), end).double()).to(theta.dtype)
    choose = torch.maximum if up else torch.minimum
    clip = torch.minimum if up else torch.maximum
    return clip(choose(torch.nextafter(theta, end), there), limit)


def _one_step_each(theta: Tensor, low: Tensor, high: Tensor, missing: float) -> Tensor:
    """Steps in the direction of what is missing, from large to small, each taken if it still fits."""
    moved = neighbour(theta, high if missing > 0 else low, missing > 0)
    steps = (torch.exp(moved).double() - torch.exp(theta).double()).abs().cpu().numpy()
    order = np.argsort(-steps, kind="stable")
    order = order[steps[order] > 0]
    ordered, left, first, taken = steps[order], abs(missing), 0, []
    while first < len(order):
        first += int(np.searchsorted(-ordered[first:], -left, side="left"))
        sums = np.cumsum(ordered[first:])
        count = int(np.searchsorted(sums, left, side="right"))
        if count == 0:
            break
        taken.append(order[first : first + count])
        left -= sums[count - 1]
        first += count
    if not taken:
        return theta
    chosen = torch.from_numpy(np.concatenate(taken)).to(theta.device)
    theta = theta.clone()
    theta[chosen] = moved[chosen]
    return theta


def _two_records(theta: Tensor, low: Tensor, high: Tensor, missing: float) -> Tensor:
    """The two of the FEW records with the smallest weights whose steps, STEPS at most, add up best."""
    few = torch.sort(torch.exp(theta), stable=True).indices
    few = few[(low < high)[few]][:FEW]
    if not len(few):
        return theta
    levels = [theta[few]]
    for up, limit in ((True, high[few]), (False, low[few])):
        here = theta[few]
        for _ in range(STEPS):
            here = neighbour(here, limit, up)
            levels.append(here)
    levels = torch.stack(levels, dim=1)  # [few, 1 + 2 STEPS]
    weights = torch.exp(levels).double().cpu().numpy()
    gains = weights - weights[:, :1]
    least, best = np.inf, None
    for i in range(len(gains)):
        others = gains[i + 1 :].ravel() if i + 1 < len(gains) else np.zeros(1)
        order = np.argsort(others, kind="stable")
        ordered = others[order]
        near = np.searchsorted(ordered, missing - gains[i])
        for place in (np.maximum(near - 1, 0), np.minimum(near, len(ordered) - 1)):
            error = np.abs(gains[i] + ordered[place] - missing)
            k = int(np.argmin(error))
            if error[k] < least:
                least, best = error[k], (i, k, int(order[place[k]]))
    i, k, other = best
    theta = theta.clone()
    theta[few[i]] = levels[i, k]
    if i + 1 < len(gains):
        j = i + 1 + other // gains.shape[1]
        theta[few[j]] = levels[j, other % gains.shape[1]]
    return theta
