"""Bounds and mass of calibration weights: what they may be, checked before a run, and what the engine is told.

With w the weights returned, i a record kept, b its initial weight (``model.initial_weights``)::

    low_i <= w_i <= high_i        bounds=(low, high), each a number or [n]; high may be infinite
    w_i >= min_weight
    w_i <= max_weight_ratio b_i
    sum w = sum b                 mass="conserve"; "free" is no constraint

A record that is dropped has weight 0, whatever its lower bound. Where several apply, the narrowest holds. They hold for
the weights that ``get_weights`` returns after the run, compared in double precision; the total within 1e-9 relative.

During the run the engine holds log_weight to the logarithms of the bounds after each step, and the mass is one more
target (:mod:`.mass_row`), which ``loss`` and ``data_loss`` of the history contain. Noise and unfinished gates leave
both only nearly met, so the end is a projection (:mod:`.projection`): gates are folded into the weights and are open or
closed for good, as after a refit. A resumed run takes the projection back and goes on as if it had never stopped.
Callbacks, and the weights of a run that was interrupted, are of before the projection.

The bounds are kept as parameters, not as weights: the largest and smallest log_weight whose exponential, as torch
computes it, is within. So no rounding can break them, and an interval without such a number is refused.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import ops
from .float_total import neighbour
from .initial import FROZEN
from .objective import finite_vector

MASSES = ("free", "conserve")
_UNLIMITED = 3e38
"""An upper bound beyond the largest float32 is none."""


@dataclass(frozen=True)
class WeightConstraints:
    """What holds for the weights of n records; tensors [n] of log_weight's dtype and device."""

    low: Tensor | None
    """Smallest log_weight, -inf for a lower bound of 0. None, as high, where nothing but the anchor was asked for."""
    high: Tensor | None
    """Largest log_weight, inf for none."""
    total: float | None
    """What the weights sum to, None for anything."""
    anchor: Tensor | None
    """lambda_l2 is the price of (exp(log_weight) / anchor)^2."""

    @property
    def projects(self) -> bool:
        """Whether there is something to hold exactly at the end."""
        return self.low is not None

    def of(self, records: Tensor) -> "WeightConstraints":
        """The constraints of some records, for a matrix that has only their columns; the total is the same."""
        low, high, anchor = (None if x is None else x[records] for x in (self.low, self.high, self.anchor))
        return WeightConstraints(low, high, self.total, anchor)


UNCONSTRAINED = WeightConstraints(None, None, None, None)


def checked_constraints(
    model,
    bounds=None,
    min_weight=None,
    max_weight_ratio=None,
    mass: str = "free",
    anchor=None,
    target_records: int | None = None,
    log_alpha: Tensor | None = None,
) -> WeightConstraints | None:
    """The constraints of a fit or refit, None for none.

    Args:
        bounds, min_weight, max_weight_ratio, mass: see the module.
        anchor: positive, a number or [n]; "initial" for the initial weights; None for 1.
        target_records: records that will be in use, if that is known.
        log_alpha: the gates that the run starts from, the model's own unless it resumes.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range; bounds that contradict each other, that no
            float32 weight meets, or that the total cannot be reached with; each with the numbers.
    """
    if mass not in MASSES:
        raise ValueError(f"mass: expected one of {', '.join(MASSES)}, got {mass!r}")
    given = {"bounds": bounds, "min_weight": min_weight, "max_weight_ratio": max_weight_ratio, "anchor": anchor}
    given["mass"] = mass if mass != "free" else None
    names = [name for name, value in given.items() if value is not None]
    if not names:
        return None
    if model._by_hand():
        raise ValueError(f"{names[0]}: expected no overridden methods, got those of {type(model).__name__}")
    anchors = None if anchor is None else _anchor(model, anchor)
    if names == ["anchor"]:
        return WeightConstraints(None, None, None, anchors)
    if model.use_gates and float(ops.hard_concrete(torch.tensor([FROZEN]), **model._gate_options())) != 1:
        raise ValueError(f"{names[0]}: expected gates that can be fully open, got beta={model.beta}, zeta={model.zeta}")
    total = _total(model) if mass == "conserve" else None
    low, high = _limits(model, bounds, min_weight, max_weight_ratio)
    if total is not None:
        _check_reach(model, low, high, total, target_records, model.log_alpha if log_alpha is None else log_alpha)
    return WeightConstraints(low, high, total, anchors)


def signature(constraints: WeightConstraints | None) -> dict:
    """What a resumed run must share, by the names that fit has for it."""
    here = constraints or UNCONSTRAINED

    def digest(*tensors: Tensor | None) -> str | None:
        if tensors[0] is None:
            return None
        return hashlib.sha256(b"".join(x.cpu().numpy().tobytes() for x in tensors)).hexdigest()

    return {
        "bounds, min_weight or max_weight_ratio": digest(here.low, here.high),
        "mass": here.total,
        "anchor": digest(here.anchor),
    }


def initial_weights(model) -> np.ndarray:
    """float64 [n]. A model that l0-python has pickled does not know them: they are those that it comes with."""
    if getattr(model, "initial_weights", None) is None:
        model.initial_weights = torch.exp(model.log_weight.detach()).double().cpu().numpy()
    return finite_vector("initial_weights", model.initial_weights, model.n_features, item="record")


def _limits(model, bounds, min_weight, max_weight_ratio) -> tuple[Tensor, Tensor]:
    """The parameters between which log_weight has to stay."""
    n = model.n_features
    low, high = _bounds(bounds, n)
    if min_weight is not None:
        low = np.maximum(low, positive_number("min_weight", min_weight, zero=True))
    if max_weight_ratio is not None:
        ratio, initial = positive_number("max_weight_ratio", max_weight_ratio), initial_weights(model)
        _reject("max_weight_ratio", initial, initial <= 0, "positive initial weights")
        high = np.minimum(high, ratio * initial)
    if (bad := np.flatnonzero(low > high)).size:
        i = bad[0]
        why = f"a smallest weight of {low[i]:.10g} and a largest of {high[i]:.10g} at record {i}"
        raise ValueError(f"bounds: expected low <= high, got {why} ({len(bad):,} such records)")
    thetas = [_inside(torch.from_numpy(x), model.log_weight.detach(), up) for x, up in ((low, True), (high, False))]
    if (bad := (thetas[0] > thetas[1]).nonzero()).numel():
        i = int(bad[0])
        raise ValueError(
            f"bounds: expected room for a {str(model.log_weight.dtype).removeprefix('torch.')} weight "
            f"exp(log_weight), got {low[i]:.10g} to {high[i]:.10g} at record {i}"
        )
    return thetas[0], thetas[1]


def _bounds(bounds, n: int) -> tuple[np.ndarray, np.ndarray]:
    if bounds is None:
        return np.zeros(n), np.full(n, math.inf)
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"bounds: expected a pair (low, high), got {type(bounds).__name__}")
    low = finite_vector("bounds: low", bounds[0], n, scalar=True, item="record")
    _reject("bounds", low, low < 0, "a low of at least 0")
    high = bounds[1].detach().cpu() if isinstance(bounds[1], Tensor) else bounds[1]
    try:
        unlimited = np.isposinf(np.asarray(high, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise TypeError(f"bounds: high: expected numbers, got {type(high).__name__} ({error})") from None
    high = finite_vector("bounds: high", np.where(unlimited, _UNLIMITED, high), n, scalar=True, item="record")
    _reject("bounds", high, high <= 0, "a high above 0")
    return low, np.where(high >= _UNLIMITED, math.inf, high)


def _inside(bounds: Tensor, like: Tensor, up: bool) -> Tensor:
    """The smallest (up) or largest parameter whose exponential is not below (above) the bound."""
    theta, limits = torch.log(bounds).to(like), bounds.to(like.device)
    inward, outward = (torch.full_like(theta, sign * math.inf) for sign in ((1, -1) if up else (-1, 1)))
    theta = torch.nextafter(theta, outward)
    for _ in range(8):  # within a rounding or two of the bound already
        weights = torch.exp(theta).double()
        beyond = weights < limits if up else weights > limits
        theta = torch.where(beyond, neighbour(theta, inward, up), theta)
    return theta


def _anchor(model, anchor) -> Tensor:
    if isinstance(anchor, str):
        if anchor != "initial":
            raise ValueError(f'anchor: expected "initial" or positive numbers, got {anchor!r}')
        anchor = initial_weights(model)
    values = finite_vector("anchor", anchor, model.n_features, scalar=True, item="record")
    _reject("anchor", values, values <= 0, "positive numbers")
    return torch.from_numpy(values).to(model.log_weight)


def _total(model) -> float:
    total = float(initial_weights(model).sum())
    if not total > 0:
        raise ValueError(f"mass: expected initial weights with a positive total, got {total:.10g}")
    return total


def _check_reach(model, low: Tensor, high: Tensor, total: float, target_records, log_alpha: Tensor) -> None:
    """Raises ValueError where no set of records within reach can have that total."""
    lows, highs = (torch.exp(x).double().cpu().numpy() for x in (low, high))
    always = np.ones(len(lows), dtype=bool)
    usable = always
    if model.use_gates:
        bounded = log_alpha.detach().cpu().numpy()
        always, usable = bounded > model.LOG_ALPHA_BOUND, bounded >= -model.LOG_ALPHA_BOUND
    others = usable & ~always
    count = int(usable.sum()) if target_records is None else min(int(target_records), int(usable.sum()))
    more = max(count - int(always.sum()), 0)
    most = highs[always].sum() + np.sort(highs[others])[::-1][:more].sum()
    least = lows[always].sum() + (0 if target_records is None else np.sort(lows[others])[:more].sum())
    whose = f"{count:,} records" if target_records is None else f"any {count:,} records"
    if most < total * (1 - 1e-12):
        raise ValueError(f"mass: expected {total:.10g} within reach, got at most {most:.10g} from {whose}")
    if least > total * (1 + 1e-12):
        if target_records is None:
            whose = f"the {int(always.sum()):,} records that are always in use"
        raise ValueError(f"mass: expected {total:.10g} within reach, got at least {least:.10g} from {whose}")


def positive_number(name: str, value, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise ValueError(f"{name}: expected a finite number {'of at least' if zero else 'above'} 0, got {value}")
    return float(value)


def _reject(name: str, values: np.ndarray, bad: np.ndarray, expected: str) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{name}: expected {expected}, got {values[first]:.10g} at record {first}")
