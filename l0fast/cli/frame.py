"""Where a command's problem comes from: a matrix file, or with ``--data`` records in a table and targets in words."""

import argparse
from pathlib import Path

import numpy as np

from ..calibration.frames import CalibrationProblem
from .files import InputError, check_readable, optional_module, read_initial_weights


def check_input(options: argparse.Namespace) -> None:
    """That the options name one source, and only what goes with it.

    Raises:
        InputError: with the option at fault.
    """
    if options.data is None:
        if options.matrix is None:
            raise InputError("MATRIX: expected a matrix file, or --data with a parquet file of records")
        for option, value in (("--id", options.id), ("--weight", options.weight)):
            if value is not None:
                raise InputError(f"{option}: names a column of --data, which is not given")
        return
    if options.matrix is not None:
        raise InputError(f"--data: expected either a matrix or --data, got {options.matrix} and {options.data}")
    if options.orient != "targets_by_records":
        raise InputError("--orient: is about MATRIX, which --data replaces")
    if options.weight is not None and options.init_weights:
        raise InputError("--weight: expected either --weight or --init-weights, got both")
    if options.id == "weight":
        raise InputError("--id: a column named weight would stand in the weights file twice")


def problem_file(options: argparse.Namespace) -> tuple[str, str]:
    """The option and the path of what holds the records."""
    return ("MATRIX", options.matrix) if options.data is None else ("--data", options.data)


def read_frame(options: argparse.Namespace) -> tuple[CalibrationProblem, np.ndarray]:
    """The problem of --data and --targets, and its initial weights [n_records].

    Raises:
        InputError: unreadable files, or whatever is wrong with targets or records, by name.
    """
    check_readable("--targets", options.targets)
    if not Path(options.data).is_dir():
        check_readable("--data", options.data)
    optional_module("pyarrow.parquet", "data", "--data")
    try:
        problem = CalibrationProblem.from_frame(options.data, options.targets, options.id, options.weight)
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = str(error)
        renamed = next((part for part in ("targets", "data", "id", "weight") if text.startswith(f"{part}:")), None)
        raise InputError(text if renamed is None else f"--{text}") from None
    if options.init_weights:
        return problem, read_initial_weights(options.init_weights, problem.matrix.n_records)
    return problem, problem.weights
