"""What ``l0fast calibrate`` says about a finished run: the table of targets, the JSON, the report."""

import argparse
import sys
from pathlib import Path

import numpy as np

from ..calibration.diagnostics import quality, target_table, weight_statistics
from ..calibration.report import ReportData, render_report
from .check import Problem
from .files import file_sha256, init_weights_path
from .fit import Run
from .frame import problem_file
from .info import versions

_NOT_OPTIONS = ("run", "command", "matrix", "data", "targets", "init_weights", "output")


def percent(x: float) -> str:
    """'16.0 %'; an error too small for one decimal gets two digits."""
    value = 100 * x
    return f"{value:.1f} %" if value == 0 or value >= 0.05 else f"{value:.2g} %"


def table(problem: Problem, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The target table before and after, with totals summed in double precision from the weights as written."""
    targets = problem.targets
    totals = (problem.matrix @ w.astype(np.float64) for w in (problem.initial, weights))
    return target_table(targets.names, targets.values, *totals, groups=targets.groups)


def plain_options(options: argparse.Namespace) -> dict:
    """Every option that matters for repeating the run, as JSON can hold it."""
    plain = {key: value for key, value in vars(options).items() if key not in _NOT_OPTIONS}
    if options.target_records is not None:
        plain["lambda_l0"] = None  # the budget has set it
    return plain | {
        "group_multiplier": dict(options.group_multiplier),
        "require": [str(requirement) for requirement in options.require],
    }


def record(options, outputs, problem: Problem, run: Run, weights, rows, findings, timings) -> dict:
    """The content of the JSON file."""
    inputs = _inputs(options)
    if options.init_weights:
        inputs["init_weights"] = init_weights_path(options.init_weights)
    after = quality(rows["after"], rows["target"]) | {"active": int((weights > 0).sum())}
    n_targets, n_records = problem.matrix.shape
    return {
        "command": "calibrate",
        "versions": versions(),
        "inputs": {key: {"path": str(path), "sha256": file_sha256(path)} for key, path in inputs.items()},
        "outputs": {option.lstrip("-"): str(path) for option, path in outputs.items() if path},
        "problem": {"targets": n_targets, "records": n_records, "nonzeros": int(problem.matrix.nnz)},
        "options": plain_options(options),
        "epochs": {"total": run.model.epoch, "this_process": run.epochs, "stopped": run.model.stopped},
        "seconds": {key: round(value, 4) for key, value in timings.items()},
        "peak_memory_bytes": _peak_memory(),
        "quality": {"before": quality(rows["before"], rows["target"]), "after": after},
        "requirements": {str(requirement): requirement.met(after) for requirement in options.require},
        "weights": {
            "before": weight_statistics(problem.initial),
            "after": weight_statistics(weights, problem.initial),
        },
        "preflight": findings,
    }


def _inputs(options: argparse.Namespace) -> dict[str, str]:
    option, path = problem_file(options)
    return {option.lower().lstrip("-"): path, "targets": options.targets}


def report(options, problem: Problem, run: Run, weights, rows, findings) -> str:
    """The HTML report of the run."""
    shown = {key: value for key, value in plain_options(options).items() if value not in (None, False, [], {})}
    return render_report(
        ReportData(
            title=f"Calibration of {Path(problem_file(options)[1]).name}",
            table=rows,
            weights=weights,
            initial_weights=problem.initial,
            history=run.model.history,
            seconds=run.seconds,
            options={**_inputs(options), **shown},
            versions=versions(),
            findings=findings,
        )
    )


def _peak_memory() -> int | None:
    """Peak resident memory of this process in bytes; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
