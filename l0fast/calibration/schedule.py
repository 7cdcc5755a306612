"""How step, temperature and price of a gate change along a run.

A constant step circles around the weights instead of reaching them, and most gates close late, because what they are
worth and what they cost nearly balance. Both cost epochs. On the CPS problems of benchmarks/bench_convergence.py 400
annealed epochs at lr 0.3 end below 1,000 constant ones at lr 0.15 in objective, data loss, mean error and records
alike. Where all records are alike, as in random matrices, they end with less error but more records, at an objective
up to a sixth higher.
"""

import math
from dataclasses import dataclass, replace

from .chunks import SCHEDULE_EVERY, FitOptions
from .state import RunState

SCHEDULES = ("constant", "anneal")
HALF = 0.5
"""Share of the run after which the step begins to fall, and temperature and price are back at what was asked for."""
FIRST_TEMPERATURE = 2.0
"""Times beta: soft gates have gradients, so that a gate closed too early opens again."""
FIRST_PRICE = 4.0
"""Times lambda_l0: gates that can close do so early."""


@dataclass(frozen=True)
class Schedule:
    """Factors of lr, beta and lambda_l0, each constant for SCHEDULE_EVERY epochs.

    With t in [0, 1) the share of the run that is done: of lr 1 for t < 1/2, then ``(1 + cos(pi (2 t - 1))) / 2``; of
    beta ``2 - 2 t`` and of lambda_l0 ``4 - 6 t`` for t < 1/2, then 1.
    """

    epochs: int
    """Of the whole run, with those that a resumed run has done before."""

    def factors(self, epoch: int) -> tuple[float, float, float]:
        """Of lr, beta and lambda_l0 in the epoch, counted from 0 in the whole run."""
        done = (epoch - epoch % SCHEDULE_EVERY) / self.epochs
        fall = max(0.0, (done - HALF) / (1 - HALF))
        left = max(0.0, 1 - done / HALF)
        return (
            (1 + math.cos(math.pi * fall)) / 2,
            1 + (FIRST_TEMPERATURE - 1) * left,
            1 + (FIRST_PRICE - 1) * left,
        )

    def options(self, model, run: RunState, options: FitOptions) -> FitOptions:
        """The options of the epochs to come; sets their price."""
        lr, temperature, price = self.factors(run.epoch)
        run.lambda_l0 = options.lambda_l0 * price
        return replace(options, lr=options.lr * lr, temperature=model.beta * temperature)


def checked_schedule(model, schedule: str, options: FitOptions, target_records) -> Schedule | None:
    """The schedule of a fit, None for a constant one.

    Raises:
        TypeError, ValueError: not one of SCHEDULES; with target_records, which sets the price itself; for a model with
            methods of its own, which know one temperature.
    """
    if not isinstance(schedule, str):
        raise TypeError(f"schedule: expected a string, got {type(schedule).__name__}")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if schedule == "constant":
        return None
    if target_records is not None:
        raise ValueError(f"schedule: expected 'constant' with target_records, got {schedule!r}")
    if model._by_hand():
        raise ValueError(
            f"schedule: expected no overridden methods with {schedule!r}, got those of {type(model).__name__}"
        )
    done = model.epoch if options.resume else 0
    return Schedule(max(1, done + options.epochs))
