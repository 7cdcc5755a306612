"""``l0fast check``, and what every command does before a run: reading a problem and looking at it."""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .. import _load
from ..calibration import SparseCalibrationWeights
from ..calibration.preflight import PreflightReport, preflight
from . import files
from .files import InputError
from .output import say


@dataclass(frozen=True)
class Problem:
    """What was read."""

    matrix: sp.sparray
    """[n_targets, n_records]."""
    targets: files.Targets
    initial: np.ndarray
    """[n_records]."""
    seconds: float


def check(options: argparse.Namespace) -> int:
    """The preflight alone. 0 clean or warnings only, 2 errors."""
    problem = read_problem(options)
    report = run_preflight(problem, options)
    for finding in report.findings:
        say(str(finding))
    n_targets, n_records = problem.matrix.shape
    say(f"{n_targets:,} targets x {n_records:,} records, {problem.matrix.nnz:,} nonzeros")
    say(
        f"memory about {_size(report.bytes_total)}: matrix {_size(report.bytes_matrix)}, state "
        f"{_size(report.bytes_state)}, totals {_size(report.bytes_totals)}"
    )
    measured = None if report.errors else _time_an_epoch(problem, options)
    seconds, how = (report.seconds, "") if measured is None else (measured * options.epochs, ", two of them timed here")
    say(f"time about {seconds:,.1f} s for {options.epochs:,} epochs with every record in use{how}")
    if report.errors:
        raise InputError(f"{count_errors(report)}, listed above")
    say("no errors")
    return 0


def _time_an_epoch(problem: Problem, options: argparse.Namespace) -> float | None:
    """Seconds of an epoch on this machine as busy as it is now; None where the options do not allow a run."""
    model = SparseCalibrationWeights(problem.matrix.shape[1], init_keep_prob=1.0, init_weights=problem.initial, seed=0)
    targets = problem.targets
    extra = {"target_scales": targets.scale, "target_tolerances": targets.tolerance}
    try:
        model.fit(problem.matrix, targets.values, epochs=1, lr=0.0, loss_type=options.loss, **extra)
        began = time.perf_counter()
        model.fit(problem.matrix, targets.values, epochs=2, lr=0.0, loss_type=options.loss, resume=True, **extra)
    except (ValueError, FloatingPointError):
        return None
    return (time.perf_counter() - began) / 2


def read_problem(options: argparse.Namespace) -> Problem:
    """Reads matrix, targets and initial weights, and checks that their lengths agree."""
    began = time.perf_counter()
    matrix = files.read_matrix(options.matrix)
    targets = files.read_targets(options.targets)
    n_targets, n_records = matrix.shape
    if len(targets.names) != n_targets:
        raise InputError(
            f"--targets: expected {n_targets:,} targets, one for each row of the matrix, "
            f"got {len(targets.names):,} in {options.targets}"
        )
    if targets.ignored:
        say(f"note: columns {', '.join(targets.ignored)} of {options.targets} are not used")
    initial = np.ones(n_records)
    if options.init_weights:
        initial = files.read_initial_weights(options.init_weights, n_records)
    return Problem(matrix, targets, initial, time.perf_counter() - began)


def run_preflight(problem: Problem, options: argparse.Namespace) -> PreflightReport:
    """The preflight of a problem that was read."""
    targets = problem.targets
    return preflight(
        problem.matrix,
        targets.values,
        targets.names,
        loss_type=options.loss,
        epochs=options.epochs,
        init_weights=problem.initial,
        target_weights=targets.weight,
        target_scales=targets.scale,
        target_tolerances=targets.tolerance,
        compiled=_load.native_error() is None,
    )


def count_errors(report: PreflightReport) -> str:
    """The one line that ends a command whose preflight failed."""
    return f"the preflight found {len(report.errors)} error{'' if len(report.errors) == 1 else 's'}"


def _size(count: int) -> str:
    """Bytes as '12.3 MB', decimal units."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
