"""A record budget: the price of an open gate becomes the multiplier of the constraint "at most k records in use".

The constraint is E[active] <= k as in Gallego-Posada et al. 2022 (arXiv 2208.04425), with a multiplier that rises
while it is violated and restarts at 0 when it holds. Three things differ, because a run should END at k, not below it:

* What is compared with k is the number of gates that are open without noise, which users get. A gate is so exactly
  if its probability of being open is above 1/2: both counts agree once the gates have made up their minds.
* A gate that has closed is drawn no more and learns nothing: what overshoots stays below. So the count is led to k
  along ``k + (count - k) exp(-t / TIME_CONSTANT)``, slowly where it is close.
* Gates answer late: Adam moves each of them by about lr an epoch, however high the price. So the count looked at is
  that in HORIZON epochs if every gate keeps its present pace, which Adam's own moments tell.

The multiplier moves on a logarithmic scale, since its size is that of the loss, which may be 1e-6 or 1e12.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import constants as c
from .chunks import STEER_EVERY
from .sampling import sampford
from .sharding.group import Alone, ShardGroup, frozen
from .sharding.selection import most_probable_of_all
from .state import RunState

HORIZON = 30
"""Epochs looked ahead. 20 to 50 end within about 2 % on the problems of tests/test_budget.py."""
TIME_CONSTANT = 60
"""Epochs in which the records above the budget fall to 1/e."""
GAIN = 5.0
"""Steps of the log multiplier for each unit of the log of (predicted / wished count)."""
MOST_UP, MOST_DOWN = 0.7, 2.0
"""Largest steps up and down: down is faster, because an overshoot stays."""
FIRST_SHARE, LEAST_SHARE = 0.1, 1e-5
"""The multiplier starts at, and never falls below, this share of the loss per record: it has to come back."""
MOST_LOSSES = 100.0
"""Nor does it exceed the loss so many times: at 1, a record costs as much as all the error there is."""
TOLERANCE = 0.01
"""A run ends within this share of the budget, or within one record of it."""
MARGIN = 0.01
"""How far beyond the threshold a gate is put that has to change sides, in units of beta: about 0.001 of a gate."""
WORTH_SAYING = 0.05
"""Share of the budget that a run may miss without a warning."""


class _Default(float):
    """A default that can be told from the same number given by the caller; l0-python's signature stays."""


DEFAULT_LAMBDA_L0 = _Default(0.01)


@dataclass(frozen=True)
class RecordBudget:
    """target records in use: exactly, or within TOLERANCE."""

    target: int
    exact: bool
    sampled: bool
    """Whether they are drawn with the gates' probabilities in the end, not the most probable ones."""
    group: Alone | ShardGroup

    @property
    def tolerance(self) -> int:
        """Records that a run may end away from the target."""
        return 0 if self.exact else max(1, math.floor(TOLERANCE * self.target))

    def steer(self, model, run: RunState, lr: float) -> None:
        """Sets the price of an open gate for the next STEER_EVERY epochs from where the gates are and where they go."""
        log_alpha = model.log_alpha.detach().double()
        threshold = _threshold(model)
        count = int((log_alpha > threshold).sum())
        predicted = int((log_alpha + HORIZON * _pace(run, lr) > threshold).sum())
        count, predicted = self.group.sum(count, predicted)
        loss, n = max(_recent_loss(run), 1e-200), self.group.n_total
        lowest, highest = math.log(LEAST_SHARE * loss / n), math.log(MOST_LOSSES * loss)
        if run.log_multiplier is None:
            run.log_multiplier = math.log(FIRST_SHARE * loss / n)
        step = self._step(count, predicted)
        run.log_multiplier = min(max(run.log_multiplier + step, lowest), highest)
        run.lambda_l0 = math.exp(run.log_multiplier) if count > self.target else 0.0

    def _step(self, count: int, predicted: int) -> float:
        """Of the log multiplier, in [-MOST_DOWN, MOST_UP]."""
        k = self.target
        wished = k + max(count - k, 0) * math.exp(-HORIZON / TIME_CONSTANT)
        if count > k and predicted < wished:
            # Too fast, measured on what is left to close: at 5 % above k an overshoot of 5 % is everything.
            return max(-MOST_DOWN, math.log(max(predicted - k, 0.5) / max(wished - k, 0.5)))
        return min(max(GAIN * math.log(max(predicted, 0.5) / wished), -MOST_UP), MOST_UP)

    def settle(self, model, run: RunState) -> None:
        """Closes what gap is left: outside the tolerance, the k most probable gates are open, ties by index.

        The gates that change sides are put just beyond the threshold; run.unsettled keeps what they were.
        """
        gates = model.get_deterministic_gates().detach()
        (count,) = self.group.sum(int((gates > 0).sum()))
        run.inclusion = None
        if abs(count - self.target) <= self.tolerance and not self.sampled:
            return
        # Steered runs miss by a few gates on the fence. Much more than that, and somebody should know.
        if abs(count - self.target) > max(1, WORTH_SAYING * self.target) and self.group.is_first:
            warnings.warn(
                f"target_records: {count:,} records were in use after epoch {run.epoch:,}; the gates nearest to the "
                f"threshold were moved to get {self.target:,}. More epochs, or a refit, give better weights",
                RuntimeWarning,
                stacklevel=4,
            )
        log_alpha = model.log_alpha.detach()
        chosen = torch.zeros_like(gates, dtype=torch.bool)
        if self.sampled:
            drawn, run.inclusion = _drawn(model, self.target, int(run.seed))
            chosen[drawn] = True
        elif self.group.sharded:
            chosen[most_probable_of_all(log_alpha, self.target, self.group)] = True
        else:
            chosen[most_probable(log_alpha, self.target)] = True
        moved = (chosen != (gates > 0)).nonzero().squeeze(1)
        run.unsettled = (moved, log_alpha[moved].clone())
        side = torch.where(chosen[moved], MARGIN, -MARGIN)
        with torch.no_grad():
            model.log_alpha[moved] = (_threshold(model) + side * model.beta).to(log_alpha.dtype)


def checked_budget(
    model, target_records, exact, group: Alone | ShardGroup | None = None, log_alpha: Tensor | None = None
) -> RecordBudget | None:
    """The budget of a fit, None for none. target_records counts in all processes of the group.

    log_alpha: the gates that the fit starts from, if they are not the model's.

    Raises:
        TypeError, ValueError: not an int or bool; out of reach, with the numbers; for a model without gates or with
            methods of its own.
    """
    if not isinstance(exact, bool | np.bool_ | str):
        raise TypeError(f"exact: expected True, False or 'sampled', got {type(exact).__name__}")
    if isinstance(exact, str) and exact != "sampled":
        raise ValueError(f"exact: expected True, False or 'sampled', got {exact!r}")
    if target_records is None:
        if exact:
            raise ValueError("exact: expected target_records with it, got None")
        return None
    if exact == "sampled" and group is not None and group.sharded:
        raise ValueError("exact: 'sampled' works in one process only, got it with process_group")
    if isinstance(target_records, bool) or not isinstance(target_records, int | np.integer):
        raise TypeError(f"target_records: expected an int, got {type(target_records).__name__}")
    if not model.use_gates:
        raise ValueError("target_records: expected a model with gates, got use_gates=False")
    if model._by_hand():
        raise ValueError(f"target_records: expected no overridden methods, got those of {type(model).__name__}")
    # Gates beyond the bound never move (init_keep_prob of 0 or 1).
    group = Alone(model) if group is None else group
    always_open, most = group.reach if log_alpha is None else frozen(model, log_alpha)
    least = max(1, always_open)
    if not least <= target_records <= most:
        why = "" if (least, most) == (1, group.n_total) else " (the other gates are always open or always closed)"
        raise ValueError(f"target_records: expected {least} to {most} records{why}, got {target_records}")
    return RecordBudget(int(target_records), bool(exact), exact == "sampled", group)


def gate_price(n_features: int, lambda_l0: float, lambda_share, target_records, l1_lambda=None) -> float:
    """lambda_l0 from the three ways of asking for it; with a budget or l1_lambda, 0.

    Raises:
        TypeError, ValueError: two of them were given, or lambda_share is not a finite number of at least 0.
    """
    given = {"target_records": target_records is not None, "lambda_share": lambda_share is not None}
    given["l1_lambda"] = l1_lambda is not None
    given["lambda_l0"] = lambda_l0 is not DEFAULT_LAMBDA_L0
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise ValueError(f"{names[0]}: expected it alone, got {names[1]} too; each sets the price of a record")
    if lambda_share is not None:
        if isinstance(lambda_share, bool) or not isinstance(lambda_share, int | float | np.number):
            raise TypeError(f"lambda_share: expected a number, got {type(lambda_share).__name__}")
        if not (math.isfinite(lambda_share) and lambda_share >= 0):
            raise ValueError(f"lambda_share: expected a finite non-negative number, got {lambda_share}")
        return float(lambda_share) / n_features
    return float(lambda_l0) if target_records is None and l1_lambda is None else 0.0


def most_probable(log_alpha: Tensor, k: int) -> Tensor:
    """Indices int64 [k] of the k largest log_alpha; among equal ones the smallest index."""
    return torch.sort(log_alpha, descending=True, stable=True).indices[:k]


def _drawn(model, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices int64 [k] of a sample with probabilities proportional to P(z != 0), and these probabilities [n].

    Gates beyond the bound are not up to chance: always open ones are in it, always closed ones are not.
    """
    log_alpha = model.log_alpha.detach().double().cpu()
    sizes = torch.sigmoid(log_alpha - _threshold(model))
    always = log_alpha > model.LOG_ALPHA_BOUND
    sizes[always | (log_alpha < -model.LOG_ALPHA_BOUND)] = 0
    inclusion, left = always.double(), k - int(always.sum())
    drawn = torch.empty(0, dtype=torch.int64)
    if left:
        indices, chances = sampford(sizes.numpy(), left, seed % 2**63)
        drawn, inclusion = torch.from_numpy(indices), inclusion + torch.from_numpy(chances)
    return torch.cat([always.nonzero().squeeze(1), drawn]).to(model.device), inclusion


def unsettle(model, run: RunState) -> None:
    """Takes back what :meth:`RecordBudget.settle` has moved."""
    run.inclusion = None
    if run.unsettled is not None:
        indices, log_alpha = run.unsettled
        with torch.no_grad():
            model.log_alpha[indices.to(model.device)] = log_alpha.to(model.log_alpha)
        run.unsettled = None


def _threshold(model) -> float:
    """log_alpha above which a gate is open without noise: ``sigmoid(x / beta) (zeta - gamma) + gamma = 0``."""
    return model.beta * math.log(-model.gamma / model.zeta)


def _pace(run: RunState, lr: float) -> Tensor:
    """What Adam adds to each log_alpha in an epoch, float64 [n]."""
    first = run.moments["alpha_exp_avg"].double() / (1 - c.ADAM_BETA1**run.epoch)
    second = run.moments["alpha_exp_avg_sq"].double() / (1 - c.ADAM_BETA2**run.epoch)
    return -lr * first / (second.sqrt() + c.ADAM_EPSILON)


def _recent_loss(run: RunState) -> float:
    """Mean data loss of the last STEER_EVERY epochs."""
    rows, chunks = 0, []
    for chunk in reversed(run.metrics):
        chunks.append(chunk[-(STEER_EVERY - rows) :, 1])
        rows += len(chunks[-1])
        if rows >= STEER_EVERY:
            break
    return float(np.concatenate(chunks[::-1]).mean())
