"""The run of ``l0fast calibrate``: builds the model, fits it, and turns what it raises into one line."""

import argparse
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from ..calibration import SparseCalibrationWeights
from ..calibration.diagnostics import relative_errors
from .check import Problem
from .device import check_device, out_of_memory
from .files import InputError
from .output import TargetLog, rescue_weights, say


@dataclass
class Run:
    """A fitted model and what is known of the run so far."""

    model: SparseCalibrationWeights
    epochs: int = 0
    """Of this process: a resumed run has done more."""
    seconds: float = 0.0
    refit_seconds: dict[str, float] = field(default_factory=dict)
    """'refit' and its seconds, where there was one."""


def on_terminal() -> bool:
    """Whether a progress bar makes sense: a pipe or a file gets plain lines."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def build_model(problem: Problem, options: argparse.Namespace) -> SparseCalibrationWeights:
    """A fresh model, or the one of the checkpoint.

    Raises:
        InputError: an option that the model refuses, or a checkpoint that does not fit.
    """
    check_device(options.device)
    try:
        model = SparseCalibrationWeights(
            problem.matrix.shape[1],
            beta=options.beta,
            gamma=options.gamma,
            zeta=options.zeta,
            init_keep_prob=options.keep_prob,
            init_weights=problem.initial,
            log_weight_jitter_sd=options.jitter,
            log_alpha_jitter_sd=options.alpha_jitter,
            device=options.device,
            use_gates=not options.no_gates,
            seed=options.seed,
        )
        if options.resume:
            model.load_checkpoint(options.checkpoint)
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None
    if options.resume and model.epoch > options.epochs:
        raise InputError(f"--epochs: expected at least the {model.epoch:,} of the checkpoint, got {options.epochs:,}")
    return model


def fit(run: Run, problem: Problem, options: argparse.Namespace, log: TargetLog | None) -> None:
    """Fits run.model and fills in what it took.

    Raises:
        InputError: something that the model refuses, a loss that diverges, a checkpoint that cannot be written.
        KeyboardInterrupt: after saving the checkpoint, with a message that says so.
    """
    model, targets, matrix = run.model, problem.targets, problem.matrix
    bar = on_terminal()

    def look(epoch: int, metrics: dict) -> None:
        if log is not None:
            estimates = matrix @ model.get_weights(deterministic=True).detach().cpu().numpy().astype(np.float64)
            log.append(epoch, estimates, relative_errors(estimates, targets.values))
        if not bar:
            say(
                f"epoch {epoch:,} of {options.epochs:,}: loss {metrics['loss']:.4g}, mean error "
                f"{metrics['mean_error']:.3%}, largest {metrics['max_error']:.1%}, active {metrics['active']:,}"
            )

    first, began = model.epoch, time.perf_counter()
    try:
        model.fit(
            matrix,
            targets.values,
            **_price(options),
            lambda_l2=options.lambda_l2,
            lr=options.lr,
            epochs=options.epochs - first,
            verbose="bar" if bar else False,
            verbose_freq=options.verbose_freq,
            **_loss(problem, options),
            callback=look if log is not None or not bar else None,
            resume=options.resume,
            checkpoint=options.checkpoint,
            checkpoint_freq=options.checkpoint_freq,
            tol=options.tol,
            patience=options.patience,
            schedule=options.schedule,
        )
    except (ValueError, TypeError, FloatingPointError) as error:
        raise InputError(str(error)) from None
    except torch.OutOfMemoryError as error:
        raise out_of_memory(options.device, error) from None
    except OSError as error:
        # The checkpoint's disk is full, say. What was computed is worth keeping.
        weights = model.get_weights(deterministic=True).detach().cpu().numpy()
        reason = f"--checkpoint: cannot write {options.checkpoint}: {error.strerror or error}"
        raise InputError(f"{reason}; stopped at epoch {model.epoch:,}, {rescue_weights(weights)}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(model, options)) from None
    run.seconds, run.epochs = time.perf_counter() - began, model.epoch - first


def refit(run: Run, problem: Problem, options: argparse.Namespace) -> None:
    """Trains the weights of the records in use once more, without gates; a checkpoint stays that of the run before.

    Raises:
        InputError: no record is in use, or the loss diverges.
        KeyboardInterrupt: with a message that says what there is.
    """
    began = time.perf_counter()
    before = run.model.get_weights(deterministic=True).detach().cpu().numpy()
    try:
        run.model.refit(
            *(problem.matrix, problem.targets.values, options.refit, options.lr, options.lambda_l2),
            **_loss(problem, options),
        )
    except (ValueError, FloatingPointError) as error:
        raise InputError(f"{error}; {rescue_weights(before)}") from None
    except torch.OutOfMemoryError as error:
        raise out_of_memory(options.device, error) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"during the refit; of the run before it {rescue_weights(before)}") from None
    run.refit_seconds["refit"] = time.perf_counter() - began
    after = run.model.get_weights(deterministic=True).detach().cpu().numpy()
    errors = [
        np.abs(relative_errors(problem.matrix @ w.astype(np.float64), problem.targets.values)).mean()
        for w in (before, after)
    ]
    say(
        f"refit of {int((after > 0).sum()):,} records: mean relative error {errors[0]:.3%} -> {errors[1]:.3%}, "
        f"{run.refit_seconds['refit']:,.1f} s for {options.refit:,} epochs"
    )


def _price(options: argparse.Namespace) -> dict:
    """What decides how many records are kept."""
    if options.target_records is None:
        return {"lambda_l0": options.lambda_l0}
    return {"target_records": options.target_records, "exact": options.exact}


def _loss(problem: Problem, options: argparse.Namespace) -> dict:
    """What a miss costs, the same for a fit and a refit."""
    targets = problem.targets
    return {
        "loss_type": options.loss,
        "target_groups": targets.groups,
        "normalize_groups": not options.no_normalize_groups,
        "group_multipliers": dict(options.group_multiplier) or None,
        "target_weights": targets.weight,
        "target_scales": targets.scale,
        "target_tolerances": targets.tolerance,
        "loss_cap": options.loss_cap,
    }


def _interrupted(model: SparseCalibrationWeights, options: argparse.Namespace) -> str:
    """Saves what there is to save and says so."""
    done = f"after {model.epoch:,} of {options.epochs:,} epochs"
    if options.checkpoint is None:
        return f"{done}; nothing saved, there was no --checkpoint"
    if model.epoch == 0:
        return f"{done}; nothing to save"
    try:
        model.save_checkpoint(options.checkpoint)
    except OSError as error:
        return f"{done}; --checkpoint: cannot write {options.checkpoint}: {error.strerror or error}"
    return f"{done}; saved in {options.checkpoint}, --resume continues"
