"""The lines that ``l0fast calibrate`` ends with."""

import argparse

from ..calibration.holdout_table import HoldoutResult
from ..calibration.judging import Judgement
from .check import Problem
from .fit import Run
from .output import say
from .parents import levels_line
from .results import percent


def say_budget(run: Run, problem: Problem, options: argparse.Namespace) -> None:
    if options.target_records is not None:
        count, prices = run.model.get_active_weights()["count"], run.model.history["lambda_l0"]
        if problem.processes is not None:
            (count,) = problem.processes.sum(count)
        price = f", price of a record {prices.max():.3g} at most" if len(prices) else ""
        say(f"budget {options.target_records:,}: {count:,} records in use{price}")


def say_stopped(run: Run, options: argparse.Namespace) -> None:
    if run.model.stopped:
        say(f"stopped at epoch {run.model.epoch:,} of {options.epochs:,}: the objective has ceased to fall (--tol)")


def say_judged(judged: Judgement, options: argparse.Namespace) -> None:
    if judged.levels:
        say(levels_line(judged.levels))
    past = judged.overall["past_cap_after"]
    if past:
        say(
            f"past the cap: {past:,} of {judged.overall['targets']:,} targets have an error of {options.loss_cap:.0%} "
            f"or more, where no gradient reaches them (at the start {judged.overall['past_cap_before']:,})"
        )


def say_holdout(holdout: HoldoutResult) -> None:
    row = holdout.table()[-1]
    held, fitted, initial = (percent(row[f"{key}_mean"]) for key in ("held_out", "fit", "initial"))
    say(
        f"holdout of {holdout.folds} folds of {holdout.by}: mean relative error {held} on targets left out (median "
        f"{percent(row['held_out_median'])}), {fitted} fitted, {initial} with the initial weights, "
        f"{holdout.seconds:,.1f} s"
    )


def say_quality(quality: dict, n_records: int, run: Run, options: argparse.Namespace) -> int:
    """The last line, and one for each --require that was missed; the exit code."""
    before, after = quality["before"], quality["after"]
    say(
        f"mean relative error {percent(before['mean_error'])} -> {percent(after['mean_error'])}, "
        f"active {after['active']:,} of {n_records:,}, {run.seconds:,.1f} s for {run.epochs:,} epochs"
    )
    missed = [requirement for requirement in options.require if not requirement.met(after)]
    for requirement in missed:
        say(f"missed --require {requirement}: {requirement.key} is {after[requirement.key]:g}")
    return 1 if missed else 0
