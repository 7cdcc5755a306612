"""Weights once more, without gates, on the columns of the records in use."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import constants as c
from .. import ops
from .chunks import FitOptions, run_chunks
from .constraints import UNCONSTRAINED, WeightConstraints
from .epochs import group_epochs
from .initial import FROZEN
from .mass_row import with_mass_row
from .matrix import PackedMatrix
from .objective import Objective
from .progress import Reporter
from .projection import project, records_to_use, scaled
from .sharding.group import Alone, ShardGroup
from .state import RunState

STAGES = 10
"""Parts of a refit, each with a smaller step: at a constant one, Adam circles around the best weights."""


@dataclass
class _Dense:
    """The weights of the support as the engine takes them: a parameter each, and gates that nobody asks."""

    log_weight: Tensor
    log_alpha: Tensor
    _run: RunState | None = None

    def _trained(self) -> dict[str, Tensor]:
        return {"weight": self.log_weight, "alpha": self.log_alpha}

    def _engine_options(self) -> dict:
        return {"link": c.LINK_EXP, "gates": False}  # no noise, so no first_index

    @property
    def epoch(self) -> int:
        return self._run.epoch


def check_refit(model, refit) -> None:
    """Raises TypeError or ValueError where a refit was asked for that is none."""
    if not isinstance(refit, bool):
        raise TypeError(f"refit: expected True or False, got {type(refit).__name__}")
    if refit and not model.use_gates:
        raise ValueError("refit: expected a model with gates, got use_gates=False")
    if refit and model._by_hand():
        raise ValueError(f"refit: expected no overridden methods, got those of {type(model).__name__}")


def refit_weights(
    model,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    group: Alone | ShardGroup,
    constraints: WeightConstraints | None = None,
) -> None:
    """See SparseCalibrationWeights.refit; of the options it takes epochs, lr and lambda_l2."""
    constraints = constraints or UNCONSTRAINED
    weights = model.get_weights(deterministic=True).detach()
    used = weights > 0
    if constraints.projects:
        used = records_to_use(model, constraints)
        weights = torch.where(weights > 0, weights, torch.exp(model.log_weight.detach()))
    support = used.nonzero().squeeze(1)
    if not group.sum(len(support))[0]:
        raise ValueError("refit: expected records in use, got none; a smaller lambda_l0 or a budget keeps some")
    limits, best = constraints.of(support), torch.log(weights[support])
    if limits.projects:
        best = torch.minimum(torch.maximum(best, limits.low), limits.high)
    compact = matrix.columns(support) if len(support) else _no_columns(matrix)
    try:
        for _, log_weight in _stages(best, compact, objective, options, group, limits):
            best = log_weight
    except KeyboardInterrupt:
        _write_back(model, support, best, constraints)
        raise KeyboardInterrupt("refit: stopped; the model has the best weights so far") from None
    _write_back(model, support, best, constraints)


def _no_columns(matrix: PackedMatrix) -> PackedMatrix:
    """Of a process whose records are all out of use; it goes on adding nothing to the others' totals."""
    return PackedMatrix(matrix.indptr[:1], matrix.rows[:0], matrix.values[:0], (matrix.n_targets, 0))


def _stages(
    log_weight: Tensor,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    group: Alone | ShardGroup,
    limits: WeightConstraints,
):
    """Yields (loss, log_weight) at the start of a refit and whenever a stage ends with a lower loss."""
    dense = _Dense(log_weight.clone(), torch.zeros_like(log_weight))
    # The seed is never drawn from: without gates there is no noise. One of its own leaves the generators alone.
    run = dense._run = RunState.new(torch.zeros(1, dtype=torch.int64, device=log_weight.device), dense._trained())
    running, aim = (matrix, objective) if limits.total is None else with_mass_row(matrix, objective, limits.total)

    def exact() -> tuple[float, Tensor]:
        """What would be returned, and its loss."""
        here = _with_total(dense.log_weight, limits)
        return loss_of(here, matrix, objective, options.lambda_l2, limits.anchor, group), here

    least, best = exact()
    yield least, best
    for stage in range(STAGES):
        first, last = (options.epochs * k // STAGES for k in (stage, stage + 1))
        lr = options.lr * (1 + math.cos(math.pi * stage / STAGES)) / 2
        part = replace(options, epochs=last - first, lr=lr, verbose=False, callback=None, checkpoint=None)

        def epochs(count: int, part=part, aim=aim):
            return group_epochs(group, dense, run, running, aim, part, count, limits)

        run_chunks(run, part, epochs, Reporter(dense, part), "a refit with a smaller lr", group=group)
        loss, here = exact()
        if loss < least:
            least = loss
            yield loss, here
        if limits.total is not None:
            aim = _shifted(aim, limits.total - float(torch.exp(dense.log_weight.double()).sum()))


def _with_total(log_weight: Tensor, limits: WeightConstraints) -> Tensor:
    """A copy whose weights have the total, where there is one."""
    if limits.total is None:
        return log_weight.clone()
    low, high = (torch.exp(x).double() for x in (limits.low, limits.high))
    return torch.log(scaled(torch.exp(log_weight.double()), low, high, limits.total)).to(log_weight.dtype)


def _shifted(aim: Objective, missing: float) -> Objective:
    """The mass row asks for as much more as it missed: the method of multipliers, so that a soft target ends met."""
    targets = aim.targets.clone()
    targets[-1] += missing
    return replace(aim, targets=targets)


def loss_of(
    log_weight: Tensor,
    matrix: PackedMatrix,
    objective: Objective,
    lambda_l2: float = 0.0,
    anchor: Tensor | None = None,
    group: Alone | ShardGroup | None = None,
) -> float:
    """What a refit minimises: ``sum_j omega_j rho((M w - y)_j / scale_j) + lambda_l2 sum (w / anchor)^2``."""
    totals, _ = ops.gated_totals(
        *(log_weight, torch.zeros_like(log_weight), matrix.indptr, matrix.rows, matrix.values, matrix.n_targets, None),
        link=c.LINK_EXP,
        gates=False,
    )
    squares = (torch.exp(log_weight.double()) / (1 if anchor is None else anchor)).square().sum()
    both = torch.cat([totals.double(), squares.reshape(1)])
    if group is not None and group.sharded:
        both = group.together(both)
    loss = float(objective.loss(both[:-1])) + lambda_l2 * float(both[-1])
    return loss if group is None else group.of_first(loss)


def _write_back(model, support: Tensor, log_weight: Tensor, constraints: WeightConstraints) -> None:
    """The gates go beyond the bound: open, or closed, for good."""
    with torch.no_grad():
        model.log_weight[support] = log_weight
        model.log_alpha.fill_(-FROZEN)
        model.log_alpha[support] = FROZEN
    if constraints.projects:
        project(model, constraints)
    if model._run is not None:
        model._run.refitted, model._run.unsettled, model._run.unprojected = True, None, None
