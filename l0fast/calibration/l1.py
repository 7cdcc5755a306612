"""A second way to choose records: weights that may be 0, and a price on their size.

Without gates, ``u_i = w_i / b_i >= 0`` is trained, b the initial weights::

    sum_j omega_j rho((M w - y)_j / scale_j) + lambda_l2 sum_i (w_i / anchor_i)^2 + l1_lambda sum_i w_i / b_i

so that l1_lambda, like lambda_l0, is the price of a record with its initial weight, in units of the loss, and lr is a
step in units of the initial weight. After each of Adam's steps, u is shrunk in Adam's own metric and cut off at 0::

    u_i = max(u_i - lr l1_lambda / (sqrt(v_i) + eps), 0)        v Adam's bias-corrected second moment

(:func:`l0fast.reference.restrict_`): the proximal step of the L1 norm, which ends at exactly 0 for records not worth
their price. Where targets already fix the total of the weights, the price has nothing to choose between: it moves
weight between records only as far as the targets leave open.

Source: Tibshirani 1996 (the lasso); Duchi, Singer 2009 (JMLR 10, forward-backward splitting: a proximal step after each
gradient step, also in a diagonal metric).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import constants as c
from .chunks import FitOptions, run_chunks
from .constraints import UNCONSTRAINED, WeightConstraints, initial_weights, positive_number
from .epochs import engine_epochs
from .initial import FROZEN
from .mass_row import with_mass_row
from .matrix import PackedMatrix
from .objective import Objective
from .progress import CalibrationReporter
from .projection import project
from .sharding.group import Alone
from .state import RunState


@dataclass
class _Ratios:
    """The ratios u of the records that may be chosen, as the engine takes them; no gate is asked."""

    ratio: Tensor
    unused: Tensor

    def _trained(self) -> dict[str, Tensor]:
        return {"weight": self.ratio, "alpha": self.unused}

    def _engine_options(self) -> dict:
        return {"link": c.LINK_IDENTITY, "gates": False}


def checked_l1(model, l1_lambda, options: FitOptions, plan) -> float | None:
    """The price, None for none.

    Raises:
        TypeError, ValueError: not a number of at least 0; for a model without gates or with methods of its own; with a
            resumed run, a checkpoint, tol or a schedule; no record that could be chosen.
    """
    if l1_lambda is None:
        return None
    price = positive_number("l1_lambda", l1_lambda, zero=True)
    if not model.use_gates:
        raise ValueError("l1_lambda: expected a model with gates, which say who is left out, got use_gates=False")
    if model._by_hand():
        raise ValueError(f"l1_lambda: expected no overridden methods, got those of {type(model).__name__}")
    for name in ("resume", "checkpoint"):
        if getattr(options, name):
            raise ValueError(f"l1_lambda: expected no {name}, its run ends as a refit does")
    for name, given in (("tol", plan.stopping), ("schedule", plan.schedule)):
        if given is not None:
            raise ValueError(f"l1_lambda: expected no {name} with it")
    if not len(_candidates(model)):
        raise ValueError(
            "l1_lambda: expected records with a positive initial weight and a gate that may open, got none"
        )
    return price


def select(
    model,
    matrix: PackedMatrix,
    objective: Objective,
    options: FitOptions,
    price: float,
    constraints: WeightConstraints | None = None,
) -> None:
    """Runs options.epochs epochs from the model's weights before gates; gates end open or closed for good.

    The history has the loss without the price; its expected_active and open_gates are the records that could be chosen.
    """
    constraints = constraints or UNCONSTRAINED
    records = _candidates(model)
    like = model.log_weight.detach()
    base = torch.from_numpy(initial_weights(model)).to(like.device)[records]
    limits, running = _in_ratios(constraints.of(records), base, like), (matrix.columns(records), objective)
    if constraints.total is not None:
        running = with_mass_row(*running, constraints.total)
    running = (_scaled(running[0], base.to(like.dtype)), running[1])
    ratios = _Ratios(
        (torch.exp(like[records].double()) / base).to(like.dtype), torch.zeros_like(base, dtype=like.dtype)
    )
    seed = torch.zeros(1, dtype=torch.int64, device=like.device)  # never drawn from, without gates
    run = model._run = RunState.new(seed, ratios._trained())
    run.refitted, run.signature = True, {"l1_lambda": price}

    def epochs(count: int) -> np.ndarray:
        metrics = engine_epochs(ratios, run, *running, options, count, limits, lambda_l1=price)
        metrics[:, 1] = metrics[:, 3] = len(records)
        _write_back(model, records, ratios.ratio.double() * base)
        return metrics

    try:
        _write_back(model, records, ratios.ratio.double() * base)
        reporter = CalibrationReporter(model, options, matrix, objective, Alone(model))
        run_chunks(run, options, epochs, reporter, "a smaller lr or other target_scales")
    finally:
        run.moments = RunState.new(seed, model._trained()).moments
    if constraints.projects:
        project(model, constraints)
        run.unprojected = None
    with torch.no_grad():
        model.log_alpha.copy_(torch.where(model.log_alpha > 0, FROZEN, -FROZEN))


def _candidates(model) -> Tensor:
    """int64 [k]: records with an initial weight whose gates are not closed for good."""
    open_ = model.log_alpha.detach() >= -model.LOG_ALPHA_BOUND
    return (open_ & torch.from_numpy(initial_weights(model) > 0).to(open_.device)).nonzero().squeeze(1)


def _in_ratios(limits: WeightConstraints, base: Tensor, like: Tensor) -> WeightConstraints:
    """What holds for u = w / base; a lower bound is 0 until the end, or no record could leave."""
    high = None if limits.high is None else (torch.exp(limits.high).double() / base).to(like.dtype)
    anchor = ((1.0 if limits.anchor is None else limits.anchor.double()) / base).to(like.dtype)
    return WeightConstraints(torch.zeros_like(base, dtype=like.dtype), high, limits.total, anchor)


def _scaled(matrix: PackedMatrix, factors: Tensor) -> PackedMatrix:
    """The matrix with each column times its factor."""
    values = matrix.values * torch.repeat_interleave(factors.to(matrix.dtype), matrix.column_nnz)
    return PackedMatrix(matrix.indptr, matrix.rows, values, matrix.shape)


def _write_back(model, records: Tensor, weights: Tensor) -> None:
    """Records with a weight are open; the others closed, and only those that are no candidates for good."""
    log_weight = torch.log(weights).to(model.log_weight.dtype)
    kept = torch.exp(log_weight) > 0  # float32 may round a tiny weight to 0
    with torch.no_grad():
        model.log_weight[records[kept]] = log_weight[kept]
        model.log_alpha.fill_(-FROZEN)
        model.log_alpha[records] = -model.LOG_ALPHA_BOUND
        model.log_alpha[records[kept]] = FROZEN
