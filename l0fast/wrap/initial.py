"""Initial log_alpha of a parameter's gates."""

import math

import torch
from torch import Tensor

from .._checks import as_real
from .layout import Layout
from .selection import Entry

EXPECTED = "'normal', ('normal', std), 'constant', ('constant', droprate), 'magnitude' or a function"

STD = 1e-2
"""Deviation of the normal start, as the original authors have it."""

LEAST, MOST = math.log(1e-2), math.log(1e2)
"""Where constrain_parameters holds log_alpha, and a start by magnitude too."""


def open_rate(name: str, droprate) -> float:
    """1 - droprate, for a droprate whose logit is finite."""
    rate = as_real(name, droprate)
    if not 0 < rate < 1:
        raise ValueError(f"{name}: expected a probability strictly between 0 and 1, got {droprate}")
    return 1 - rate


def logit(rate: float) -> float:
    return math.log(rate) - math.log(1 - rate)


def checked_choice(entry: Entry, init):
    """Raises what :func:`draw` would of a choice that is none."""
    where = f"init of {entry.name}"
    if callable(init) or (isinstance(init, str) and init in ("normal", "constant", "magnitude")):
        return init
    if isinstance(init, tuple) and len(init) == 2 and init[0] in ("normal", "constant"):
        if init[0] == "constant":
            open_rate(where, init[1])
        elif not (as_real(where, init[1]) >= 0 and math.isfinite(init[1])):
            raise ValueError(f"{where}: expected a finite deviation of at least 0, got {init[1]}")
        return init
    error = ValueError if isinstance(init, str | tuple) else TypeError
    raise error(f"{where}: expected {EXPECTED}, got {init!r}")


@torch.no_grad()
def draw(entry: Entry, layout: Layout, init, droprate_init: float) -> Tensor:
    """log_alpha of shape ``layout.gates``, of the parameter's dtype and device.

    normal: N(log((1 - d) / d), std^2), std 0.01; constant: log((1 - d) / d). magnitude: the odds of being open,
    (1 - d) / d on (geometric) average, are proportional to the root mean square of the gate's weights.
    """
    parameter = entry.parameter.detach()
    centre = logit(open_rate("droprate_init", droprate_init))
    if callable(init):
        return _called(entry, layout, init)
    kind, value = init if isinstance(init, tuple) else (init, None)
    if kind == "normal":
        return parameter.new_empty(layout.gates).normal_(centre, STD if value is None else value)
    if kind == "constant":
        return parameter.new_full(layout.gates, centre if value is None else logit(open_rate("init", value)))
    size = (layout.sums(parameter.double().square()) / max(layout.per_gate, 1)).sqrt()
    logs = size.clamp(min=1e-8 * size.max().item() if size.numel() else 0).log()
    shift = torch.where(logs.isfinite(), logs - logs.mean(), 0)  # all weights 0: no magnitude to go by
    return (centre + shift).clamp(LEAST, MOST).to(parameter.dtype)


def _called(entry: Entry, layout: Layout, init) -> Tensor:
    where = f"init of {entry.name}"
    values = init(entry.name, entry.parameter.detach(), layout.gates)
    try:
        values = torch.as_tensor(values).to(entry.parameter).expand(layout.gates)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected the function to return numbers of shape {list(layout.gates)}, got {_described(values)}"
        ) from error
    if not values.is_meta and not values.isfinite().all():
        raise ValueError(f"{where}: expected the function to return finite numbers, got NaN or infinity")
    return values.clone()


def _described(values) -> str:
    return f"shape {list(values.shape)}" if isinstance(values, Tensor) else f"{type(values).__name__} ({values!r})"
