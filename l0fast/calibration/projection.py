"""The end of a constrained run: the weights that are returned obey exactly what was asked for.

Three steps: the records in use, more of them where their bounds cannot carry the mass; their weights
``clip(c v, low, high)`` with v the gated weights of the run and the one c that gives the total; and the rounding to
float32, after which single weights move by a few of their smallest steps until the float64 sum of the float32 weights
is the total (:mod:`.float_total`).
"""

import warnings

import torch
from torch import Tensor

from .budget import RecordBudget, most_probable
from .constraints import WeightConstraints
from .float_total import repair_total
from .initial import FROZEN
from .state import RunState

HEADROOM = 1.1
"""Where records have to be opened or exchanged, their bounds then allow so many times the mass: at 1 every weight would
be at its bound, and nothing be left to meet the targets with."""
CLOSE = 1e-12
"""Sums in float64 agree within this share."""


def project(model, constraints: WeightConstraints, budget: RecordBudget | None = None) -> None:
    """Makes the model's deterministic weights obey the constraints; run.unprojected keeps the parameters from before.

    Raises:
        ValueError: no set of records that the gates allow can carry the mass; nothing has changed.
    """
    used = records_to_use(model, constraints, budget)
    records = used.nonzero().squeeze(1)
    gates = model.get_deterministic_gates().detach() if model.use_gates else torch.ones_like(model.log_weight)
    gates = torch.where(gates > 0, gates, 1.0)[records].double()  # a record that was opened has its weight as it is
    limits = constraints.of(records)
    low, high = (torch.exp(x).double() for x in (limits.low, limits.high))
    weights = scaled(torch.exp(model.log_weight.detach()[records].double()) * gates, low, high, limits.total)
    before = model.log_weight.detach().clone(), model.log_alpha.detach().clone()
    with torch.no_grad():
        log_weight = torch.log(weights).to(model.log_weight.dtype)
        model.log_weight[records] = torch.minimum(torch.maximum(log_weight, limits.low), limits.high)
        if limits.total is not None:
            repair_total(model.log_weight, records, limits.low, limits.high, limits.total)
        if model.use_gates:
            model.log_alpha.copy_(torch.where(used, FROZEN, -FROZEN))
    if model._run is not None:
        model._run.unprojected = before


def unproject(model, run: RunState) -> None:
    """Takes back what :func:`project` has changed."""
    if run.unprojected is not None:
        with torch.no_grad():
            for parameter, before in zip((model.log_weight, model.log_alpha), run.unprojected, strict=True):
                parameter.copy_(before)
        run.unprojected = None


def records_to_use(model, constraints: WeightConstraints, budget: RecordBudget | None = None) -> Tensor:
    """bool [n]: the records whose gates are open, or those nearest to them that can carry the mass."""
    if not model.use_gates:
        return torch.ones_like(model.log_weight, dtype=torch.bool)
    used = model.get_deterministic_gates().detach() > 0
    if constraints.total is None or not any(_shortfalls(used, constraints)):
        return used
    carrying = (
        _fixed_count(model, used, constraints, budget.target) if budget else _free_count(model, used, constraints)
    )
    if any(_shortfalls(carrying, constraints)):
        raise ValueError(
            f"mass: the bounds of no {'' if budget is None else f'{budget.target:,} '}records were found to allow a "
            f"total of {constraints.total:.10g}; wider bounds, or other gates, may"
        )
    opened, closed = (int((a & ~b).sum()) for a, b in ((carrying, used), (used, carrying)))
    low, high = (float(torch.exp(x[used]).double().sum()) for x in (constraints.low, constraints.high))
    warnings.warn(
        f"mass: the bounds of the {int(used.sum()):,} records in use allow a total from {low:.10g} to {high:.10g}, not "
        f"{constraints.total:.10g}: {opened:,} records were opened and {closed:,} closed",
        RuntimeWarning,
        stacklevel=5,
    )
    return carrying


def _shortfalls(used: Tensor, constraints: WeightConstraints) -> tuple[float, float]:
    """By how much the upper bounds fall short of the mass, and the lower ones exceed it, with HEADROOM; 0 if not."""
    low, high = (float(torch.exp(x[used]).double().sum()) for x in (constraints.low, constraints.high))
    missing = HEADROOM * constraints.total - high if high < constraints.total * (1 - CLOSE) else 0.0
    surplus = low - constraints.total / HEADROOM if low > constraints.total * (1 + CLOSE) else 0.0
    return missing, surplus


def _free_count(model, used: Tensor, constraints: WeightConstraints) -> Tensor:
    """The most probable closed records are opened until the upper bounds suffice, or the least probable ones closed."""
    used = used.clone()
    always, never = _fixed_gates(model)
    order = most_probable(model.log_alpha.detach(), model.n_features)
    low, high = (torch.exp(x).double() for x in (constraints.low, constraints.high))
    candidates = order[~(used | never)[order]]
    missing, surplus = _shortfalls(used, constraints)
    if missing > 0:
        used[candidates[: int((high[candidates].cumsum(0) < missing).sum()) + 1]] = True
    candidates = order.flip(0)
    candidates = candidates[(used & ~always)[candidates]]
    if surplus > 0:
        used[candidates[: int((low[candidates].cumsum(0) < surplus).sum()) + 1]] = False
    return used


def _fixed_count(model, used: Tensor, constraints: WeightConstraints, count: int) -> Tensor:
    """count records: the most probable ones, of which as few as possible are exchanged for ones with wider bounds."""
    always, never = _fixed_gates(model)
    if int(used.sum()) != count:
        used = torch.zeros_like(used)
        used[most_probable(model.log_alpha.detach(), count)] = True
    low, high = (torch.exp(x).double() for x in (constraints.low, constraints.high))
    missing, surplus = _shortfalls(used, constraints)
    used = _exchange(used, high, used & ~always, ~used & ~never, missing)
    return _exchange(used, -low, used & ~always, ~used & ~never, surplus)


def _exchange(used: Tensor, size: Tensor, out: Tensor, into: Tensor, missing: float) -> Tensor:
    """Swaps the smallest of out for the largest of into until that adds up to missing."""
    if missing <= 0:
        return used
    leave, enter = out.nonzero().squeeze(1), into.nonzero().squeeze(1)
    leave = leave[torch.sort(size[leave], stable=True).indices]
    enter = enter[torch.sort(size[enter], descending=True, stable=True).indices]
    most = min(len(leave), len(enter))
    gains = (size[enter[:most]] - size[leave[:most]]).clamp(min=0).cumsum(0)
    count = min(int((gains < missing).sum()) + 1, int((gains.diff(prepend=gains.new_zeros(1)) > 0).sum()))
    used = used.clone()
    used[leave[:count]], used[enter[:count]] = False, True
    return used


def _fixed_gates(model) -> tuple[Tensor, Tensor]:
    """Gates that are always open, and always closed."""
    log_alpha = model.log_alpha.detach()
    return log_alpha > model.LOG_ALPHA_BOUND, log_alpha < -model.LOG_ALPHA_BOUND


def scaled(weights: Tensor, low: Tensor, high: Tensor, total: float | None) -> Tensor:
    """clip(c weights, low, high) float64 [k] with the sum wanted; c = 1 without one. weights are above 0."""

    def clipped(c: float) -> Tensor:
        return torch.minimum(torch.maximum(c * weights, low), high)

    if total is None:
        return clipped(1.0)
    above = 1.0
    while float(clipped(above).sum()) < total and above < 1e300:
        above *= 2
    below = 0.0
    for _ in range(1100):  # every binade of float64, if it must be
        middle = (below + above) / 2
        if middle in (below, above):
            break
        below, above = (middle, above) if float(clipped(middle).sum()) < total else (below, middle)
    return clipped(above)
