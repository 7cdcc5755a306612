"""``l0fast calibrate --holdout``: the same fit without each fold of the targets."""

import argparse

import torch

from ..calibration import SparseCalibrationWeights
from ..calibration.holdout import Holdout, Left, Rotation
from ..calibration.holdout_table import HoldoutResult
from .check import Problem
from .device import out_of_memory
from .files import InputError
from .fit import Run, build_model, constraint_options, loss_options, price_options


def hold_out(run: Run, problem: Problem, options: argparse.Namespace) -> HoldoutResult:
    """The folds of --holdout, each fitted, and refitted, as the run was.

    Raises:
        InputError: a loss that diverges in a fold; or too few targets or groups, where the run has not begun yet.
        KeyboardInterrupt: with a message that says what there is.
    """
    rotation, loss = (
        holdout_folds(problem, options),
        loss_options(problem, options) | constraint_options(problem, options),
    )
    matrix = run.model.pack(problem.matrix)
    common = (matrix, problem.targets.values)

    def fit_fold(model: SparseCalibrationWeights, left: Left) -> None:
        changed = loss | {"target_weights": left.target_weights, "hierarchy": left.hierarchy}
        steps = {"lambda_l2": options.lambda_l2, "lr": options.lr}
        model.fit(*common, **price_options(options), **steps, epochs=options.epochs, **changed)
        if options.refit is not None:
            model.refit(*common, epochs=options.refit, **steps, **changed)

    start = build_model(problem, argparse.Namespace(**(vars(options) | {"resume": False})))
    initial = problem.matrix @ problem.initial
    try:
        return rotation.run(start, matrix, run.model, fit_fold, initial)
    except (ValueError, FloatingPointError) as error:
        raise InputError(f"--{error}" if str(error).startswith("holdout") else str(error)) from None
    except torch.OutOfMemoryError as error:
        raise out_of_memory(options.device, error) from None


def holdout_folds(problem: Problem, options: argparse.Namespace) -> Rotation:
    """Which targets --holdout leaves out, checked.

    Raises:
        InputError: more folds than targets or groups, or no groups.
    """
    loss = loss_options(problem, options)
    known = {key: loss[key] for key in ("target_groups", "normalize_groups", "target_weights", "hierarchy")}
    try:
        holdout = Holdout(options.holdout, options.holdout_by, options.seed)
        return Rotation(holdout, problem.targets.values, len(problem.targets.names), **known)
    except (ValueError, TypeError) as error:
        raise InputError(f"--{error}" if str(error).startswith("holdout") else str(error)) from None
