"""``l0fast frontier``: what fewer records cost, from files to a table and a picture."""

import argparse
import itertools
from pathlib import Path

import torch

from ..calibration.frontier import FrontierPoint
from . import output
from .check import Problem, look, read_problem
from .checked import look_before
from .device import out_of_memory
from .files import InputError, check_readable, init_weights_path, optional_module
from .fit import build_model, constraint_options, loss_options
from .frame import check_input, problem_file
from .output import say
from .results import percent

COLUMNS = ("target", "records", "lambda_l0", "loss", "mean_error", "max_error", "ess")
"""Of the table: fields of a FrontierPoint."""


def frontier(options: argparse.Namespace) -> int:
    """One fit along decreasing budgets. 0 done; everything else raises InputError."""
    weights = _check(options)
    problem = read_problem(options)
    look_before(problem, problem.initial, options, *look(problem))
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    points = _points(problem, options)
    for point in points:
        say(
            f"budget {point.target:,}: {point.records:,} records, mean relative error {percent(point.mean_error)}, "
            f"largest {percent(point.max_error)}, effective sample size {point.ess:,.0f}"
        )
    for path, point in zip(weights, points, strict=True) if weights else ():
        output.save_weights(path, point.weights)
    if weights:
        say(f"weights: {options.weights}")
    rows = ([getattr(point, column) for column in COLUMNS] for point in points)
    output.write_output("--output", options.output, output.csv_bytes(COLUMNS, rows))
    say(f"output: {options.output}")
    if options.plot:
        from ..calibration.report_figures import plot_frontier

        plot_frontier(points, options.plot)
        say(f"plot: {options.plot}")
    return 0


def _check(options: argparse.Namespace) -> list[Path]:
    """All that can be known to fail later, now; returns the weights files."""
    check_input(options)
    for above, below in itertools.pairwise(options.records):
        if below >= above:
            raise InputError(f"--records: expected budgets that decrease, got {below:,} after {above:,}")
    if Path(options.output).suffix.lower() != ".csv":
        raise InputError(f"--output: expected a .csv file, got {options.output}")
    source, path = problem_file(options)
    inputs = {source: path, "--targets": options.targets}
    inputs |= {"--parents": options.parents} if options.parents else {}
    inputs |= {"--init-weights": init_weights_path(options.init_weights)} if options.init_weights else {}
    inputs |= {"--bounds": str(check_readable("--bounds", options.bounds))} if options.bounds else {}
    output.check_outputs({"--output": options.output, "--plot": options.plot}, inputs)
    if options.plot:
        optional_module("matplotlib", "report", "--plot")
    if options.weights is None:
        return []
    try:
        Path(options.weights).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--weights: cannot make the folder {options.weights}: {error.strerror or error}") from None
    return [Path(options.weights) / f"weights-{count}.npy" for count in options.records]


def _points(problem: Problem, options: argparse.Namespace) -> list[FrontierPoint]:
    model, total = build_model(problem, options), len(options.records) * options.epochs

    def progress(epoch: int, metrics: dict) -> None:
        price = model.history["lambda_l0"][-1]
        say(
            f"epoch {epoch:,} of {total:,}: mean error {metrics['mean_error']:.3%}, active {metrics['active']:,}, "
            f"price of a record {price:.3g}"
        )

    try:
        return model.path(
            *(options.records, problem.matrix, problem.targets.values, options.epochs),
            lambda_l2=options.lambda_l2,
            lr=options.lr,
            exact=options.exact,
            refit=options.refit,
            callback=progress,
            verbose_freq=options.verbose_freq,
            **loss_options(problem, options),
            **constraint_options(problem, options),
        )
    except (ValueError, TypeError, FloatingPointError) as error:
        raise InputError(str(error)) from None
    except torch.OutOfMemoryError as error:
        raise out_of_memory(options.device, error) from None
