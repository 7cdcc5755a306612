"""Runs epochs in chunks: the engine does many at once, Python looks in between for Ctrl-C, reports and checkpoints."""

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from .progress import Reporter
from .state import RunState
from .stopping import CHECK_EVERY

CHUNK_SECONDS = 0.4
"""A chunk of epochs aims at this: a call checks the matrix and makes one forward pass more than it has epochs, so it
should have many; Ctrl-C waits for it, so it should be well under a second."""

CHUNK_GROWTH = 8
"""From one epoch, whose time nobody knows, to the right number in two or three calls."""


STEER_EVERY = 10
"""Epochs between two looks at a record budget: about Adam's memory of a gradient, and a fixed number, so that a run
split into chunks sees the same prices as one run."""

SCHEDULE_EVERY = 10
"""Epochs in which a schedule leaves step, temperature and price as they are; fixed, for the same reason."""


@dataclass(frozen=True)
class FitOptions:
    lambda_l0: float
    lambda_l2: float
    lr: float
    epochs: int
    loss_type: str
    verbose: bool | str
    verbose_freq: int
    callback: Callable[[int, dict], None] | None
    resume: bool
    checkpoint: str | None
    checkpoint_freq: int
    temperature: float | None = None
    """Of the gates while they are drawn; None for the model's own."""

    def __post_init__(self):
        for name in ("lambda_l0", "lambda_l2", "lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: expected a finite non-negative number, got {value}")
        for name, least in (("epochs", 0), ("verbose_freq", 1), ("checkpoint_freq", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.verbose not in (True, False, "bar"):
            raise ValueError(f'verbose: expected True, False or "bar", got {self.verbose!r}')
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback: expected a function of (epoch, metrics), got {type(self.callback).__name__}")

    def engine(self, model) -> dict:
        """Keyword arguments of ops.calibration_epochs_ and ops.calibration_step_ that say what a gate is."""
        engine = model._engine_options()
        return engine if self.temperature is None else {**engine, "temperature": self.temperature}

    def next_stop(self, epoch: int, last: int) -> int:
        """The next epoch at which somebody wants to look. Counted in the whole run: round numbers stay."""
        stops = [last]
        if self.verbose or self.callback is not None:
            stops.append((epoch // self.verbose_freq + 1) * self.verbose_freq)
        if self.checkpoint is not None:
            stops.append((epoch // self.checkpoint_freq + 1) * self.checkpoint_freq)
        return min(stops)


def run_chunks(
    run: RunState,
    options: FitOptions,
    epochs: Callable[[int], np.ndarray],
    reporter: Reporter,
    advice: str,
    save: Callable[[], None] | None = None,
    steer: Callable[[], None] | None = None,
    ended: Callable[[], bool] | None = None,
    scheduled: bool = False,
    group=None,
) -> None:
    """Runs options.epochs epochs.

    Args:
        run: counts the epochs and takes their metrics.
        epochs: runs that many epochs; returns their metrics [count, 4] as ops.calibration_epochs_ does.
        advice: what may help when the loss leaves the finite numbers.
        save: writes a checkpoint, or None.
        steer: called whenever a multiple of STEER_EVERY epochs is done, to set the price of the next ones; or None.
        ended: called at the start and after each chunk, none of which goes beyond a multiple of CHECK_EVERY: whether to
            stop there; or None.
        scheduled: no call of ``epochs`` shall go beyond a multiple of SCHEDULE_EVERY epochs.
        group: a sharding.group.ShardGroup, whose processes take the same chunks and stop together. They save after
            the first chunk too: a checkpoint needs all of them, so it cannot wait for one to be lost.

    Raises:
        FloatingPointError, KeyboardInterrupt: as SparseCalibrationWeights.fit.
    """
    last, chunk, stop = run.epoch + options.epochs, 1, False
    sharded = group is not None and group.sharded
    early = sharded
    with _held_interrupt(run, sharded) as noted, reporter:
        run.stopped = ended is not None and ended()
        while run.epoch < last and not run.stopped and not stop:
            left = options.next_stop(run.epoch, last) - run.epoch
            if steer is not None:
                left = min(left, STEER_EVERY - run.epoch % STEER_EVERY)
            if scheduled:
                left = min(left, SCHEDULE_EVERY - run.epoch % SCHEDULE_EVERY)
            if ended is not None:
                left = min(left, CHECK_EVERY - run.epoch % CHECK_EVERY)
            count = left if 2 * left < 3 * chunk else chunk  # no short call at the end
            began = time.perf_counter()
            metrics = epochs(count)
            seconds = time.perf_counter() - began
            finished = _record(run, metrics, options)
            if finished < count:
                loss = metrics[finished, 0]
                raise FloatingPointError(
                    f"fit: the data loss became {loss} at epoch {run.epoch + 1}; the parameters are those before it; "
                    f"{advice} may help"
                )
            if steer is not None and run.epoch % STEER_EVERY == 0:
                steer()
            run.stopped = ended is not None and ended()
            over = run.stopped or run.epoch == last
            reporter.after(finished, over)
            stop = bool(noted)
            if sharded:
                seconds, stop = group.agree(seconds, stop)
            chunk = max(1, min(CHUNK_GROWTH * chunk, int(count * CHUNK_SECONDS / max(seconds, 1e-9))))
            if save is not None and (run.epoch % options.checkpoint_freq == 0 or over or stop or early):
                save()
            early = False
        if stop and not noted:
            noted.append(signal.SIGINT)  # that of another process


def _record(run: RunState, metrics: np.ndarray, options: FitOptions) -> int:
    """Adds the finished epochs to the run; returns how many they are."""
    broken = np.flatnonzero(~np.isfinite(metrics[:, 0]))
    finished = int(broken[0]) if broken.size else len(metrics)
    data, probability, squares, open_gates = metrics[:finished].T
    loss = data + run.lambda_l0 * probability + options.lambda_l2 * squares
    run.metrics.append(np.stack([loss, data, probability, open_gates, np.full(finished, run.lambda_l0)], axis=1))
    run.epoch += finished
    return finished


@contextmanager
def _held_interrupt(run: RunState, sharded: bool):
    """Ctrl-C is noted while an epoch runs and obeyed after it, so that epoch count, moments and parameters agree.

    With several processes SIGTERM too: torchrun sends it to all when one of them is lost, and what the others then
    have to say is what the lost one has left behind.
    """
    noted, previous = [], {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM) if sharded else (signal.SIGINT,):
            # A process that ignores Ctrl-C (nohup, a shell's background job) goes on ignoring it.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.signal(number, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if noted:
        raise KeyboardInterrupt(f"fit: stopped after {run.epoch} epochs; fit(..., resume=True) continues")
