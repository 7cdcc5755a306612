"""Temperatures of a model's gates: set, and annealed over the epochs."""

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

from torch import nn

from .._checks import as_real, positive
from .._modules import checked_model
from ..distributions import HardConcrete
from ..wrap import L0Regularizer

GATE_ATTRIBUTES = ("weight_gates", "channel_gates", "gates")
"""Where layers keep their gates; those of other packages (l0-python's own) are found by these names."""


def update_temperatures(model: nn.Module, temperature: float) -> None:
    """Sets the temperature of every :class:`l0fast.HardConcrete` and :class:`l0fast.L0Regularizer` in the model.

    So does it for whatever has a ``temperature`` under the names weight_gates, channel_gates or gates. The ``beta`` of
    SparseCalibrationWeights and SparseL0Linear stays, as in l0-python.

    Args:
        model: any module, wrapped or not.
        temperature: beta, above 0.

    Raises:
        TypeError, ValueError: model is no module, temperature no positive number; nothing is changed then.
    """
    temperature = positive("temperature", temperature)
    for module in checked_model(model).modules():
        if isinstance(module, HardConcrete | L0Regularizer):
            module.temperature = temperature
        for name in GATE_ATTRIBUTES:
            gates = getattr(module, name, None)
            if hasattr(gates, "temperature"):
                gates.temperature = temperature


def _linear(start: float, end: float, progress: float) -> float:
    return start - (start - end) * progress


def _exponential(start: float, end: float, progress: float) -> float:
    return math.exp(_linear(math.log(start), math.log(end), progress))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "linear": _linear,
    "exponential": _exponential,
    "cosine": _cosine,
}


def _checked_schedule(schedule) -> str:
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {schedule!r}")
    return schedule


class TemperatureScheduler:
    """Temperature that goes from ``initial_temp`` to ``final_temp`` over ``anneal_epochs`` epochs and stays there.

    With ``q = epoch / anneal_epochs``: linear ``initial - (initial - final) q``; exponential
    ``initial^(1 - q) final^q``; cosine ``final + (initial - final) (1 + cos(pi q)) / 2``.

    Two ways of use. As in l0-python, by epoch number::

        scheduler = TemperatureScheduler(2.0, 0.1, anneal_epochs=100)
        for epoch in range(200):
            update_temperatures(model, scheduler.get_temperature(epoch))

    Or as torch.optim.lr_scheduler does it, with the model held by the scheduler, which sets the first temperature
    when it is made and the next one at each step::

        scheduler = TemperatureScheduler(2.0, 0.1, anneal_epochs=100, model=model)
        for epoch in range(200):
            train(...)
            scheduler.step()

    Args:
        initial_temp, final_temp: above 0.
        anneal_epochs: number of epochs, at least 0 (0: final_temp from the start).
        schedule: "linear", "exponential" or "cosine".
        model: whose gates :meth:`step` sets. None: :meth:`get_temperature` only.
        last_epoch: the epoch before the one that begins now; -1 at the start of a run.

    Attributes:
        initial_temp, final_temp, anneal_epochs, schedule, model: as above.
        last_epoch: the epoch whose temperature is set now: 0 after construction, one more after each step.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    def __init__(
        self,
        initial_temp: float = 2.0,
        final_temp: float = 0.1,
        anneal_epochs: int = 100,
        schedule: str = "exponential",
        *,
        model: nn.Module | None = None,
        last_epoch: int = -1,
    ):
        self.initial_temp = positive("initial_temp", initial_temp)
        self.final_temp = positive("final_temp", final_temp)
        if not 0 <= as_real("anneal_epochs", anneal_epochs) < math.inf:
            raise ValueError(f"anneal_epochs: expected a number of epochs, at least 0, got {anneal_epochs}")
        self.anneal_epochs = int(anneal_epochs) if anneal_epochs == int(anneal_epochs) else float(anneal_epochs)
        self.schedule = _checked_schedule(schedule)
        if isinstance(last_epoch, bool) or not isinstance(last_epoch, Integral):
            raise TypeError(f"last_epoch: expected an int, got {last_epoch!r}")
        if last_epoch < -1:
            raise ValueError(f"last_epoch: expected at least -1, got {last_epoch}")
        self.last_epoch = int(last_epoch) + 1
        self.model = None if model is None else checked_model(model)
        self._set_temperature()

    def __setstate__(self, state: dict) -> None:
        """Also takes what l0-python has pickled, which knows no steps."""
        self.__dict__.update({"model": None, "last_epoch": 0, **state})

    def get_temperature(self, epoch: int) -> float:
        """The temperature of an epoch >= 0, whatever has been stepped.

        Raises:
            TypeError, ValueError: epoch is no number, or negative.
        """
        if not as_real("epoch", epoch) >= 0:
            raise ValueError(f"epoch: expected at least 0, got {epoch}")
        if epoch >= self.anneal_epochs:
            return self.final_temp
        anneal = SCHEDULES[_checked_schedule(self.schedule)]
        return anneal(self.initial_temp, self.final_temp, epoch / self.anneal_epochs)

    def step(self) -> float:
        """Goes on to the next epoch: sets the temperature of the model's gates and returns it.

        Raises:
            ValueError: the scheduler was made without a model.
        """
        if self.model is None:
            raise ValueError("model: expected one at construction, TemperatureScheduler(..., model=model), got None")
        self.last_epoch += 1
        self._set_temperature()
        return self.get_last_temperature()

    def get_last_temperature(self) -> float:
        """The temperature of the present epoch, ``last_epoch``."""
        return self.get_temperature(self.last_epoch)

    def _set_temperature(self) -> None:
        if self.model is not None:
            update_temperatures(self.model, self.get_last_temperature())

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and a string, all but the model; ``torch.load(..., weights_only=True)`` reads them."""
        names = ("initial_temp", "final_temp", "anneal_epochs", "schedule", "last_epoch")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken; the model's gates get that epoch's temperature at once.

        (A temperature is no part of a model's own state_dict.)

        Raises:
            TypeError, ValueError: a key is missing or unknown, or its value out of range; nothing is changed then.
        """
        expected, got = set(self.state_dict()), set(state_dict)
        if expected != got:
            raise ValueError(f"state_dict: expected the keys {sorted(expected)}, got {sorted(map(str, got))}")
        last_epoch = state_dict["last_epoch"]
        if isinstance(last_epoch, bool) or not isinstance(last_epoch, Integral) or last_epoch < 0:
            raise ValueError(f"state_dict: expected a last_epoch of at least 0, got {last_epoch!r}")
        checked = TemperatureScheduler(**{**state_dict, "last_epoch": last_epoch - 1})
        self.__dict__.update(checked.state_dict())
        self._set_temperature()
