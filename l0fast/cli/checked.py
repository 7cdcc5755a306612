"""What is wrong with a command before it begins: options that contradict each other, files that cannot be, a problem
that cannot work."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..calibration.row_facts import RowFacts, achievable
from . import files, output
from .check import Problem, count_errors, run_preflight
from .files import InputError
from .frame import check_input, problem_file
from .options import DEFAULT_LAMBDA_L0
from .output import say
from .processes import CommandProcesses


def check_options(options: argparse.Namespace, processes: CommandProcesses | None) -> dict[str, str | None]:
    """What is wrong with the options themselves; returns the output files by option."""
    check_input(options)
    output.check_weights_format(options.output)
    json_path = options.json or str(Path(options.output).with_suffix(".json"))
    outputs = {"--output": options.output, "--json": json_path, "--diagnostics": options.diagnostics}
    outputs |= {"--report": options.report, "--log": options.log, "--checkpoint": options.checkpoint}
    _check_price(options)
    if options.resume and not options.checkpoint:
        raise InputError("--resume: expected --checkpoint FILE too, to continue from")
    if options.resume:
        files.check_readable("--checkpoint", options.checkpoint)
    for option, given in {"--holdout": options.holdout, "--integerize": options.integerize}.items():
        if given and processes is not None:
            raise InputError(f"{option}: works in one process only")
    return outputs


def _check_price(options: argparse.Namespace) -> None:
    """Several ways to say how many records to keep, of which one goes."""
    typed = {"--lambda-l0": options.lambda_l0 is not DEFAULT_LAMBDA_L0}
    typed |= {"--lambda-share": options.lambda_share is not None, "--no-gates": options.no_gates}
    ways = {"--target-records": options.target_records, "--l1-lambda": options.l1_lambda, "--refit": options.refit}
    for way, value in ways.items():
        if value is None:
            continue
        if way != "--refit" and typed["--lambda-l0"]:
            hint = ", which it sets" if way == "--target-records" else ""
            raise InputError(f"{way}: expected it without --lambda-l0{hint}")
        if way != "--refit" and typed["--lambda-share"]:
            raise InputError(f"{way}: expected it without --lambda-share")
        if typed["--no-gates"]:
            raise InputError(f"{way}: expected it without --no-gates")
    if typed["--lambda-share"] and typed["--lambda-l0"]:
        raise InputError("--lambda-share: expected it without --lambda-l0")
    if options.l1_lambda is not None:
        for option, given in {"--target-records": options.target_records, "--checkpoint": options.checkpoint}.items():
            if given:
                raise InputError(f"--l1-lambda: expected it without {option}")
    if options.exact and options.target_records is None:
        raise InputError("--exact: expected --target-records with it")


def check_outputs(options: argparse.Namespace, outputs: dict[str, str | None]) -> None:
    """All that can be known to fail at the end, now."""
    source, path = problem_file(options)
    inputs = {source: path, "--targets": options.targets}
    if options.parents:
        inputs["--parents"] = options.parents
    if options.init_weights:
        inputs["--init-weights"] = files.init_weights_path(options.init_weights)
    if options.bounds:
        inputs["--bounds"] = str(files.check_readable("--bounds", options.bounds))
    output.check_outputs(outputs, inputs)
    if options.report:
        files.optional_module("matplotlib", "report", "--report")


def look_before(
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
