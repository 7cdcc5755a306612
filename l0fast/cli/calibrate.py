"""``l0fast calibrate``: from files to files."""

import argparse
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..calibration.row_facts import RowFacts, achievable
from . import files, output, results
from .check import Problem, count_errors, look, read_problem, run_preflight
from .files import InputError
from .fit import Run, build_model, fit, refit
from .frame import all_ids, check_input, problem_file
from .options import DEFAULT_LAMBDA_L0
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
        outputs = _check_options(options)
        if processes is None or processes.is_first:
            _check_outputs(options, outputs)
    problem = read_problem(options, processes)
    facts, nnz = look(problem)
    initial = problem.initial if processes is None else processes.whole(problem.initial)
    with agreed():
        # The first process has all initial weights, looks and writes; the others have None.
        findings, achievable = ([], None) if initial is None else _look_before(problem, initial, options, facts, nnz)
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
    _say_budget(run, problem, options)
    if options.refit is not None:
        refit(run, problem, options)

    weights = run.model.get_weights(deterministic=True).detach().cpu().numpy()
    rows = results.table(problem, weights)
    if processes is not None:
        weights = processes.whole(weights)
    with agreed():
        if initial is None:
            return 0  # everybody's exit code is the first one's
        problem = replace(problem, initial=initial, ids=all_ids(problem, options))
        result = results.Result(run, weights, rows, findings, achievable, nnz, began)
        return _write_all(options, outputs, problem, result, log)


def _write_all(options, outputs: dict, problem: Problem, result: results.Result, log: output.TargetLog | None) -> int:
    """The files, the weights first, and the last lines; the exit code."""
    run, weights, rows = result.run, result.weights, result.rows
    output.save_weights(options.output, weights, problem.ids, options.id)
    say(f"weights: {options.output}")
    if options.diagnostics:
        content = output.table_bytes(rows | {"achievable": result.achievable})
        _write("--diagnostics", options.diagnostics, content)
    record = results.record(options, outputs, problem, result)
    _write("--json", outputs["--json"], output.json_bytes(record))
    if options.report:
        page = results.report(options, problem, result)
        _write("--report", options.report, page.encode())
    before, after = record["quality"]["before"], record["quality"]["after"]
    say(
        f"mean relative error {results.percent(before['mean_error'])} -> {results.percent(after['mean_error'])}, "
        f"active {after['active']:,} of {len(weights):,}, {run.seconds:,.1f} s for {run.epochs:,} epochs"
    )
    if log is not None and log.failure is not None:
        raise InputError(f"--log: cannot write {options.log}: {log.failure.strerror or log.failure}; the rest is done")
    missed = [requirement for requirement in options.require if not requirement.met(after)]
    for requirement in missed:
        say(f"missed --require {requirement}: {requirement.key} is {after[requirement.key]:g}")
    return 1 if missed else 0


def _say_budget(run: Run, problem: Problem, options: argparse.Namespace) -> None:
    if options.target_records is not None:
        count, prices = run.model.get_active_weights()["count"], run.model.history["lambda_l0"]
        if problem.processes is not None:
            (count,) = problem.processes.sum(count)
        price = f", price of a record {prices.max():.3g} at most" if len(prices) else ""
        say(f"budget {options.target_records:,}: {count:,} records in use{price}")


def _write(option: str, path, content: bytes) -> None:
    output.write_output(option, path, content)
    say(f"{option.lstrip('-')}: {path}")


def _check_options(options: argparse.Namespace) -> dict[str, str | None]:
    """What is wrong with the options themselves; returns the output files by option."""
    check_input(options)
    output.check_weights_format(options.output)
    json_path = options.json or str(Path(options.output).with_suffix(".json"))
    outputs = {"--output": options.output, "--json": json_path, "--diagnostics": options.diagnostics}
    outputs |= {"--report": options.report, "--log": options.log, "--checkpoint": options.checkpoint}
    if options.target_records is not None and options.lambda_l0 is not DEFAULT_LAMBDA_L0:
        raise InputError("--target-records: expected it without --lambda-l0, which it sets")
    if options.exact and options.target_records is None:
        raise InputError("--exact: expected --target-records with it")
    for option in ("target_records", "refit"):
        if options.no_gates and getattr(options, option) is not None:
            raise InputError(f"--{option.replace('_', '-')}: expected it without --no-gates")
    if options.resume and not options.checkpoint:
        raise InputError("--resume: expected --checkpoint FILE too, to continue from")
    if options.resume:
        files.check_readable("--checkpoint", options.checkpoint)
    return outputs


def _check_outputs(options: argparse.Namespace, outputs: dict[str, str | None]) -> None:
    """All that can be known to fail at the end, now."""
    source, path = problem_file(options)
    inputs = {source: path, "--targets": options.targets}
    if options.init_weights:
        inputs["--init-weights"] = files.init_weights_path(options.init_weights)
    output.check_outputs(outputs, inputs)
    if options.report:
        files.optional_module("matplotlib", "report", "--report")


def _look_before(
    problem: Problem, initial: np.ndarray, options: argparse.Namespace, facts: RowFacts, nnz: int
) -> tuple[list[str], np.ndarray]:
    """Lines of the preflight and which targets are achievable; raises where there are errors."""
    if options.no_preflight:
        return [], achievable(facts, problem.targets.values)
    report = run_preflight(replace(problem, initial=initial), options, facts, nnz)
    lines = [str(finding) for finding in report.findings]
    for line in lines:
        say(line)
    if report.errors:
        raise InputError(f"{count_errors(report)}, listed above; --no-preflight runs in spite of them")
    return lines, report.achievable
