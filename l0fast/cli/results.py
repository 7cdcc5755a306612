"""What ``l0fast calibrate`` says about a finished run: the table of targets, the JSON, the report."""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..calibration.diagnostics import quality, target_table, weight_statistics
from ..calibration.holdout_table import HoldoutResult
from ..calibration.judging import Judgement, judge
from ..calibration.report import ReportData, render_report
from .check import Problem
from .files import file_sha256, init_weights_path
from .fit import Run, loss_options
from .frame import problem_file
from .info import versions

_NOT_OPTIONS = ("run", "command", "matrix", "data", "targets", "init_weights", "bounds", "parents", "output")


def percent(x: float) -> str:
    """'16.0 %'; an error too small for one decimal gets two digits."""
    value = 100 * x
    return f"{value:.1f} %" if value == 0 or value >= 0.05 else f"{value:.2g} %"


def table(problem: Problem, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The target table before and after, with totals summed in double precision from the weights as written."""
    targets = problem.targets
    totals = (problem.totals(w) for w in (problem.initial, weights))
    return target_table(targets.names, targets.values, *totals, groups=targets.groups)


def judgement(problem: Problem, options: argparse.Namespace, rows: dict[str, np.ndarray]) -> Judgement:
    """Loss and errors by group and level."""
    return judge(rows["target"], rows["before"], rows["after"], **loss_options(problem, options))


def plain_options(options: argparse.Namespace) -> dict:
    """Every option that matters for repeating the run, as JSON can hold it."""
    plain = {key: value for key, value in vars(options).items() if key not in _NOT_OPTIONS}
    if any(x is not None for x in (options.target_records, options.l1_lambda, options.lambda_share)):
        plain["lambda_l0"] = None  # it was set by the budget or the share, or there was none
    return plain | {
        "group_multiplier": dict(options.group_multiplier),
        "level_weight": dict(options.level_weight),
        "require": [str(requirement) for requirement in options.require],
    }


@dataclass(frozen=True)
class Result:
    """What a finished command knows of all records, whichever process they were in."""

    run: Run
    weights: np.ndarray
    """[n_records]."""
    rows: dict[str, np.ndarray]
    """The table of targets."""
    findings: list[str]
    achievable: np.ndarray
    nnz: int
    began: float
    """time.perf_counter() when the command did."""
    judged: Judgement
    holdout: HoldoutResult | None = None


def record(options, outputs, problem: Problem, result: Result) -> dict:
    """The content of the JSON file. The problem has all records' initial weights."""
    run, weights, rows = result.run, result.weights, result.rows
    timings = {"read": problem.seconds, "fit": run.seconds, **run.extra_seconds}
    timings["total"] = time.perf_counter() - result.began
    inputs = _inputs(options)
    if options.init_weights:
        inputs["init_weights"] = init_weights_path(options.init_weights)
    if options.bounds:
        inputs["bounds"] = options.bounds
    after = quality(rows["after"], rows["target"]) | {"active": int((weights > 0).sum())}
    return {
        "command": "calibrate",
        "versions": versions(),
        "inputs": {key: {"path": str(path), "sha256": file_sha256(path)} for key, path in inputs.items()},
        "outputs": {option.lstrip("-"): str(path) for option, path in outputs.items() if path},
        "problem": {"targets": problem.matrix.shape[0], "records": problem.n_records, "nonzeros": result.nnz},
        "processes": 1 if problem.processes is None else problem.processes.size,
        "options": plain_options(options),
        "epochs": {"total": run.model.epoch, "this_process": run.epochs, "stopped": run.model.stopped},
        "seconds": {key: round(value, 4) for key, value in timings.items()},
        "peak_memory_bytes": _peak_memory(),
        "quality": {"before": quality(rows["before"], rows["target"]), "after": after},
        **result.judged.to_dict(),
        "holdout": None if result.holdout is None else result.holdout.to_dict(),
        "requirements": {str(requirement): requirement.met(after) for requirement in options.require},
        "weights": {
            "before": weight_statistics(problem.initial),
            "after": weight_statistics(weights, problem.initial),
        },
        "preflight": result.findings,
    }


def _inputs(options: argparse.Namespace) -> dict[str, str]:
    option, path = problem_file(options)
    parents = {"parents": options.parents} if options.parents else {}
    return {option.lower().lstrip("-"): path, "targets": options.targets, **parents}


def report(options, problem: Problem, result: Result) -> str:
    """The HTML report of the run."""
    run = result.run
    shown = {key: value for key, value in plain_options(options).items() if value not in (None, False, [], {})}
    return render_report(
        ReportData(
            title=f"Calibration of {Path(problem_file(options)[1]).name}",
            table=result.rows,
            weights=result.weights,
            initial_weights=problem.initial,
            history=run.model.history,
            seconds=run.seconds,
            options={**_inputs(options), **shown},
            versions=versions(),
            findings=result.findings,
            judgement=result.judged,
            holdout=result.holdout,
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
