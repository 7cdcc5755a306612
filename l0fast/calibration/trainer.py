"""Runs epochs in chunks: the engine does many at once, Python looks in between for Ctrl-C, reports and checkpoints."""

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from .. import ops
from . import checkpoint as checkpoints
from . import hooks
from .matrix import PackedMatrix
from .objective import Objective
from .progress import Reporter
from .state import MOMENTS, RunState

CHUNK_SECONDS = 0.4
"""A chunk of epochs aims at this: a call checks the matrix and makes one forward pass more than it has epochs, so it
should have many; Ctrl-C waits for it, so it should be well under a second."""

CHUNK_GROWTH = 8
"""From one epoch, whose time nobody knows, to the right number in two or three calls."""


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

    def next_stop(self, epoch: int, last: int) -> int:
        """The next epoch at which somebody wants to look. Counted in the whole run: round numbers stay."""
        stops = [last]
        if self.verbose or self.callback is not None:
            stops.append((epoch // self.verbose_freq + 1) * self.verbose_freq)
        if self.checkpoint is not None:
            stops.append((epoch // self.checkpoint_freq + 1) * self.checkpoint_freq)
        return min(stops)


def train(model, M, matrix: PackedMatrix, objective: Objective, options: FitOptions) -> None:
    """Runs options.epochs epochs on the model's parameters; see SparseCalibrationWeights.fit."""
    _check_parameters(model)
    signature = _signature(matrix, objective, options)
    run = model._run if options.resume else None
    if run is not None:
        checkpoints.compare_signatures(run, signature)
    else:
        run = _start_run(model)
    run.signature = signature
    by_hand = hooks.overridden(model, hooks.FIT_HOOKS)
    reporter = Reporter(model, M if by_hand else matrix, objective, options)
    last, chunk = run.epoch + options.epochs, 1
    with _held_interrupt(run) as interrupted, reporter:
        while run.epoch < last and not interrupted():
            left = options.next_stop(run.epoch, last) - run.epoch
            count = left if 2 * left < 3 * chunk else chunk  # no short call at the end
            began = time.perf_counter()
            if by_hand:
                metrics = hooks.epochs(model, run, M, objective, options, count)
            else:
                metrics = _epochs(model, run, matrix, objective, options, count)
            seconds = time.perf_counter() - began
            finished = _record(run, metrics, options)
            if finished < count:
                raise FloatingPointError(_divergence(run, metrics[finished, 0]))
            chunk = max(1, min(CHUNK_GROWTH * chunk, int(count * CHUNK_SECONDS / max(seconds, 1e-9))))
            reporter.after(finished, run.epoch == last)
            due = run.epoch % options.checkpoint_freq == 0 or run.epoch == last or interrupted()
            if options.checkpoint is not None and due:
                checkpoints.save(model, options.checkpoint)


def _check_parameters(model) -> None:
    """An infinite log_alpha is a gate that is always open or closed, as l0-python's checkpoints may hold it."""
    broken = {
        "log_weight": ~torch.isfinite(model.log_weight.detach()),
        "log_alpha": torch.isnan(model.log_alpha.detach()),
    }
    for name, bad in broken.items():
        if bad.any():
            first = int(bad.nonzero()[0])
            value = getattr(model, name)[first].item()
            raise ValueError(f"{name}: expected finite parameters, got {value} at record {first}")


def _start_run(model) -> RunState:
    """Jitter first, then the seed of the gates: the order in which l0-python draws."""
    if model.log_weight_jitter_sd > 0:
        with torch.no_grad():
            model.log_weight += model._normal() * model.log_weight_jitter_sd
    model._run = RunState.new(model._draw_seed(), model.log_weight)
    return model._run


def _epochs(model, run: RunState, matrix: PackedMatrix, objective: Objective, options, count: int) -> np.ndarray:
    metrics = ops.calibration_epochs_(
        *(model.log_weight, model.log_alpha, *(run.moments[name] for name in MOMENTS)),
        *(matrix.indptr, matrix.rows, matrix.values),
        *(objective.targets, objective.scales, objective.omega, objective.tolerances, None, run.seed),
        rho=objective.rho,
        cap=objective.cap,
        first_epoch=run.epoch,
        epochs=count,
        gates=model.use_gates,
        lambda_l0=options.lambda_l0,
        lambda_l2=options.lambda_l2,
        lr=options.lr,
        **model._gate_options(),
    )
    return metrics.cpu().numpy()


def _record(run: RunState, metrics: np.ndarray, options: FitOptions) -> int:
    """Adds the finished epochs to the run; returns how many they are."""
    broken = np.flatnonzero(~np.isfinite(metrics[:, 0]))
    finished = int(broken[0]) if broken.size else len(metrics)
    data, probability, squares, open_gates = metrics[:finished].T
    loss = data + options.lambda_l0 * probability + options.lambda_l2 * squares
    run.metrics.append(np.stack([loss, data, probability, open_gates], axis=1))
    run.epoch += finished
    return finished


def _divergence(run: RunState, value: float) -> str:
    return (
        f"fit: the data loss became {value} at epoch {run.epoch + 1}; the parameters are those before it; "
        "a smaller lr or other target_scales may help"
    )


def _signature(matrix: PackedMatrix, objective: Objective, options: FitOptions) -> dict:
    """What a resumed run must have in common with its checkpoint, by the name that fit gives it."""
    fitted = {name: getattr(options, name) for name in ("lambda_l0", "lambda_l2", "lr", "loss_type")}
    return {"M": matrix.sha256(), **objective.sha256(), **fitted}


@contextmanager
def _held_interrupt(run: RunState):
    """Ctrl-C is noted while an epoch runs and obeyed after it, so that epoch count, moments and parameters agree."""
    noted = []
    in_main = threading.current_thread() is threading.main_thread()
    # A process that ignores Ctrl-C (nohup, a shell's background job) goes on ignoring it.
    if not in_main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield lambda: False
        return
    previous = signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, previous)
    if noted:
        raise KeyboardInterrupt(f"fit: stopped after {run.epoch} epochs; fit(..., resume=True) continues")
