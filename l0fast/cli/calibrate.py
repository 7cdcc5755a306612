"""``l0fast calibrate``: from files to files."""

import argparse
import time
from contextlib import nullcontext
from dataclasses import replace

import torch

from ..calibration.integerize import integerize
from . import output, results, summary
from .check import Problem, look, read_problem
from .checked import check_options, check_outputs, look_before
from .files import InputError
from .fit import Run, build_model, fit, refit
from .frame import all_ids
from .holdout import hold_out, holdout_folds
from .output import say
from .processes import CommandProcesses, join


def calibrate(options: argparse.Namespace) -> int:
    """One calibration, from files to files. 0 done, 1 a --require was missed; everything else raises InputError.

    In a process of torchrun's it is one of many: all of them read and fit, the first writes.
    """
    processes = join(options)
    if processes is None:
        return _calibrate(options, None)
    return processes.run(lambda: _calibrate(options, processes))


def _calibrate(options: argparse.Namespace, processes: CommandProcesses | None) -> int:
    began = time.perf_counter()
    agreed = nullcontext if processes is None else processes.agreed
    with agreed():
        outputs = check_options(options, processes)
        if processes is None or processes.is_first:
            check_outputs(options, outputs)
    problem = read_problem(options, processes)
    facts, nnz = look(problem)
    initial = problem.initial if processes is None else processes.whole(problem.initial)
    with agreed():
        # The first process has all initial weights, looks and writes; the others have None.
        findings, achievable = ([], None) if initial is None else look_before(problem, initial, options, facts, nnz)
        if options.holdout is not None:
            holdout_folds(problem, options)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        run = Run(build_model(problem, options))
        log = None
        if options.log and initial is not None:
            kept = run.model.epoch if options.resume else None
            log = output.TargetLog(options.log, problem.targets.names, problem.targets.values, achievable, kept)
    if processes is not None:
        processes.obey()
    fit(run, problem, options, log)
    summary.say_budget(run, problem, options)
    summary.say_stopped(run, options)
    if options.refit is not None:
        refit(run, problem, options)

    weights = run.model.get_weights(deterministic=True).detach().cpu().numpy()
    if options.integerize:
        weights = integerize(weights, options.seed)
    rows = results.table(problem, weights)
    if processes is not None:
        weights = processes.whole(weights)
    with agreed():
        if initial is None:
            return 0  # everybody's exit code is the first one's
        problem = replace(problem, initial=initial, ids=all_ids(problem, options))
        judged = results.judgement(problem, options, rows)
        result = results.Result(run, weights, rows, findings, achievable, nnz, began, judged)
        return _write_all(options, outputs, problem, result, log)


def _write_all(options, outputs: dict, problem: Problem, result: results.Result, log: output.TargetLog | None) -> int:
    """The files, the weights first, and the last lines; the exit code."""
    run = result.run
    output.save_weights(options.output, result.weights, problem.ids, options.id)
    say(f"weights: {options.output}")
    if options.diagnostics:
        content = output.table_bytes(result.rows | {"achievable": result.achievable})
        _write("--diagnostics", options.diagnostics, content)
    summary.say_judged(result.judged, options)
    if options.holdout is not None:
        result = replace(result, holdout=hold_out(run, problem, options))
        run.extra_seconds["holdout"] = result.holdout.seconds
        summary.say_holdout(result.holdout)
    record = results.record(options, outputs, problem, result)
    _write("--json", outputs["--json"], output.json_bytes(record))
    if options.report:
        _write("--report", options.report, results.report(options, problem, result).encode())
    code = summary.say_quality(record["quality"], len(result.weights), run, options)
    if log is not None and log.failure is not None:
        raise InputError(f"--log: cannot write {options.log}: {log.failure.strerror or log.failure}; the rest is done")
    return code


def _write(option: str, path, content: bytes) -> None:
    output.write_output(option, path, content)
    say(f"{option.lstrip('-')}: {path}")
