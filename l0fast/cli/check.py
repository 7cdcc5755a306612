"""``l0fast check``, and what every command does before a run: reading a problem and looking at it."""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from .. import _load
from ..calibration import SparseCalibrationWeights
from ..calibration.hierarchy import Hierarchy
from ..calibration.memory import fit_bytes, size_text
from ..calibration.preflight import PreflightReport, preflight
from . import device, files
from .files import InputError
from .frame import check_input, read_frame
from .output import say
from .parents import read_hierarchy


@dataclass(frozen=True)
class Problem:
    """What was read."""

    matrix: sp.sparray
    """[n_targets, n_records]."""
    targets: files.Targets
    initial: np.ndarray
    """[n_records]."""
    seconds: float
    ids: object = None
    """With --data and --id: pyarrow array [n_records]."""
    hierarchy: Hierarchy | None = None


def check(options: argparse.Namespace) -> int:
    """The preflight alone. 0 clean or warnings only, 2 errors or a device with too little memory."""
    kind = device.device_kind(options.device)
    if device.absent(options.device) is None:
        device.check_device(options.device)
    problem = read_problem(options)
    report = run_preflight(problem, options)
    for finding in report.findings:
        say(str(finding))
    n_targets, n_records = problem.matrix.shape
    say(f"{n_targets:,} targets x {n_records:,} records, {problem.matrix.nnz:,} nonzeros")
    if kind == "cpu":
        parts = {"matrix": report.bytes_matrix, "state": report.bytes_state, "totals": report.bytes_totals}
        shown = ", ".join(f"{name} {size_text(count)}" for name, count in parts.items())
        say(f"memory about {size_text(report.bytes_total)}: {shown}")
    else:
        needed = fit_bytes(problem.matrix.nnz, n_records, n_targets)
        for line in device.memory_lines(options.device, needed):
            say(line)
        if not report.errors:
            device.check_room(options.device, needed)
    _say_time(problem, report, options)
    if report.errors:
        raise InputError(f"{count_errors(report)}, listed above")
    say("no errors")
    return 0


def _say_time(problem: Problem, report: PreflightReport, options: argparse.Namespace) -> None:
    measured = None
    if not report.errors and device.absent(options.device) is None:
        measured = _time_an_epoch(problem, options)
    if measured is None and device.device_kind(options.device) != "cpu":
        return  # the report's estimate is of a CPU
    seconds, how = (report.seconds, "") if measured is None else (measured * options.epochs, ", two of them timed here")
    say(f"time about {seconds:,.1f} s for {options.epochs:,} epochs with every record in use{how}")


def _time_an_epoch(problem: Problem, options: argparse.Namespace) -> float | None:
    """Seconds of an epoch on the device as busy as it is now; None where the options do not allow a run."""
    model = SparseCalibrationWeights(
        problem.matrix.shape[1],
        init_keep_prob=1.0,
        init_weights=problem.initial,
        device=options.device,
        seed=0,
    )
    targets = problem.targets
    extra = {"target_scales": targets.scale, "target_tolerances": targets.tolerance}
    try:
        model.fit(problem.matrix, targets.values, epochs=1, lr=0.0, loss_type=options.loss, **extra)
        began = time.perf_counter()
        model.fit(problem.matrix, targets.values, epochs=2, lr=0.0, loss_type=options.loss, resume=True, **extra)
    except (ValueError, FloatingPointError):
        return None
    except torch.OutOfMemoryError as error:
        raise device.out_of_memory(options.device, error) from None
    return (time.perf_counter() - began) / 2


def read_problem(options: argparse.Namespace) -> Problem:
    """Reads matrix, targets and initial weights, and checks that their lengths agree."""
    check_input(options)
    began = time.perf_counter()
    if options.data is not None:
        frame, initial = read_frame(options)
        extra = (frame.target_weights, frame.target_scales, frame.target_tolerances, frame.groups, frame.parents)
        targets = files.Targets(frame.names, frame.y, *extra)
        ids = None if options.id is None else frame.ids
        hierarchy = read_hierarchy(targets, options)
        return Problem(frame.matrix.to_scipy(), targets, initial, time.perf_counter() - began, ids, hierarchy)
    matrix = files.read_matrix(options.matrix)
    if options.orient == "records_by_targets":
        matrix = matrix.T
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
    hierarchy = read_hierarchy(targets, options)
    return Problem(matrix, targets, initial, time.perf_counter() - began, hierarchy=hierarchy)


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
