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
from ..calibration.preflight import PreflightReport, examine
from ..calibration.row_facts import RowFacts, canonical, row_facts
from ..calibration.sharding import Shard
from ..calibration.sharding.facts import merged_facts
from . import device, files
from .files import InputError
from .frame import check_input, read_frame
from .output import say
from .parents import read_hierarchy
from .processes import CommandProcesses


@dataclass(frozen=True)
class Problem:
    """What was read."""

    matrix: sp.sparray
    """[n_targets, n_records], of many processes this one's columns."""
    targets: files.Targets
    initial: np.ndarray
    """[n_records], of many processes this one's."""
    seconds: float
    ids: object = None
    """With --data and --id: pyarrow array [n_records]."""
    shard: Shard | None = None
    processes: CommandProcesses | None = None
    """Those of torchrun; None for the one process that there is."""
    hierarchy: Hierarchy | None = None

    @property
    def n_records(self) -> int:
        """In all processes."""
        return self.matrix.shape[1] if self.shard is None else self.shard.n_total

    @property
    def group(self):
        """The process_group of a fit."""
        return None if self.processes is None else self.processes.group

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """M w [n_targets] in double precision, w being this process's weights."""
        local = self.matrix @ weights.astype(np.float64)
        return local if self.processes is None else self.processes.totals(local)


def check(options: argparse.Namespace) -> int:
    """The preflight alone. 0 clean or warnings only, 2 errors or a device with too little memory."""
    kind = device.device_kind(options.device)
    if device.absent(options.device) is None:
        device.check_device(options.device)
    problem = read_problem(options)
    report = run_preflight(problem, options, *look(problem))
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


def read_problem(options: argparse.Namespace, processes: CommandProcesses | None = None) -> Problem:
    """Reads matrix, targets and initial weights, and checks that their lengths agree."""
    check_input(options)
    began = time.perf_counter()
    if options.data is not None:
        frame, initial = read_frame(options, processes)
        extra = (frame.target_weights, frame.target_scales, frame.target_tolerances, frame.groups, frame.parents)
        targets = files.Targets(frame.names, frame.y, *extra)
        ids = None if options.id is None else frame.ids
        hierarchy = read_hierarchy(targets, options)
        seconds = time.perf_counter() - began
        return Problem(frame.matrix.to_scipy(), targets, initial, seconds, ids, frame.shard, processes, hierarchy)
    if processes is None:
        return _read_matrix_problem(options, began, None)
    with processes.agreed():
        return _read_matrix_problem(options, began, processes)


def _read_matrix_problem(options: argparse.Namespace, began: float, processes: CommandProcesses | None) -> Problem:
    transposed, shard = options.orient == "records_by_targets", None
    if processes is None:
        matrix = files.read_matrix(options.matrix)
        matrix = matrix.T if transposed else matrix
    else:
        matrix, shard = processes.read_matrix(options.matrix, transposed)
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
        part = Shard(0, n_records, n_records) if shard is None else shard
        initial = files.read_initial_weights(options.init_weights, part.n_total, part.slice)
    hierarchy, seconds = read_hierarchy(targets, options), time.perf_counter() - began
    return Problem(matrix, targets, initial, seconds, None, shard, processes, hierarchy)


def look(problem: Problem) -> tuple[RowFacts, int]:
    """What the preflight has to know of the matrix, of many processes of their whole, and its nonzeros."""
    matrix = canonical(problem.matrix)
    facts, nnz = row_facts(matrix, 0 if problem.shard is None else problem.shard.first), int(matrix.nnz)
    if problem.processes is None:
        return facts, nnz
    return merged_facts(facts, problem.processes), problem.processes.sum(nnz)[0]


def run_preflight(problem: Problem, options: argparse.Namespace, facts: RowFacts, nnz: int) -> PreflightReport:
    """The preflight of a problem that was read whole, with what :func:`look` has found."""
    targets = problem.targets
    extra = {"weights": targets.weight, "scales": targets.scale, "tolerances": targets.tolerance}
    compiled = _load.native_error() is None
    texts = (targets.values, targets.names, options.loss, options.epochs)
    return examine(facts, nnz, *texts, problem.initial, extra, compiled)


def count_errors(report: PreflightReport) -> str:
    """The one line that ends a command whose preflight failed."""
    return f"the preflight found {len(report.errors)} error{'' if len(report.errors) == 1 else 's'}"
