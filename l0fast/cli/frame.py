"""Where a command's problem comes from: a matrix file, or with ``--data`` records in a table and targets in words."""

import argparse
from pathlib import Path

import numpy as np

from ..calibration.frames import CalibrationProblem
from ..calibration.frames.checks import checked_ids
from ..calibration.sharding import Shard
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


def all_ids(problem, options: argparse.Namespace):
    """The ids of all records, also where this process has read only a part of them.

    Raises:
        InputError: an id that is there twice.
    """
    if options.id is None or problem.processes is None:
        return problem.ids
    parquet = optional_module("pyarrow.parquet", "data", "--id")
    ids = parquet.read_table(options.data, columns=[options.id]).column(0)
    try:
        return checked_ids(options.id, [ids], len(ids))
    except ValueError as error:
        raise InputError(f"--{error}") from None


def read_frame(options: argparse.Namespace, processes=None) -> tuple[CalibrationProblem, np.ndarray]:
    """The problem of --data and --targets, and its initial weights [n_records]; with processes, this one's part.

    Raises:
        InputError: unreadable files, or whatever is wrong with targets or records, by name.
    """
    check_readable("--targets", options.targets)
    if not Path(options.data).is_dir():
        check_readable("--data", options.data)
    optional_module("pyarrow.parquet", "data", "--data")
    try:
        group = None if processes is None else processes.group
        problem = CalibrationProblem.from_frame(
            *(options.data, options.targets, options.id, options.weight), process_group=group
        )
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = str(error)
        renamed = next((part for part in ("targets", "data", "id", "weight") if text.startswith(f"{part}:")), None)
        raise InputError(text if renamed is None else f"--{text}") from None
    if options.init_weights:
        shard = problem.shard or Shard(0, problem.matrix.n_records, problem.matrix.n_records)
        return problem, read_initial_weights(options.init_weights, shard.n_total, shard.slice)
    return problem, problem.weights
