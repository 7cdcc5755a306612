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
from .files import InputError, read_bounds
from .output import TargetLog, rescue_weights, say


@dataclass
class Run:
    """A fitted model and what is known of the run so far."""

    model: SparseCalibrationWeights
    epochs: int = 0
    """Of this process: a resumed run has done more."""
    seconds: float = 0.0
    extra_seconds: dict[str, float] = field(default_factory=dict)
    """Of 'refit' and 'holdout', where there were any."""


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
            shard=problem.shard,
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
    bar = on_terminal() and problem.processes is None

    def look(epoch: int, metrics: dict) -> None:
        if log is not None:
            estimates = metrics["totals"]
            if problem.processes is None:  # in double precision, where one process has it all
                estimates = problem.totals(model.get_weights(deterministic=True).detach().cpu().numpy())
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
            **price_options(options),
            lambda_l2=options.lambda_l2,
            lr=options.lr,
            epochs=options.epochs - first,
            verbose="bar" if bar else False,
            verbose_freq=options.verbose_freq,
            **loss_options(problem, options),
            **constraint_options(problem, options),
            callback=look if options.log or not bar else None,
            resume=options.resume,
            checkpoint=options.checkpoint,
            checkpoint_freq=options.checkpoint_freq,
            process_group=problem.group,
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
        reason = f"--checkpoint: cannot write {options.checkpoint}: {error.strerror or error}"
        if problem.processes is not None:
            raise InputError(f"{reason}; stopped at epoch {model.epoch:,}") from None
        weights = model.get_weights(deterministic=True).detach().cpu().numpy()
        raise InputError(f"{reason}; stopped at epoch {model.epoch:,}, {rescue_weights(weights)}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(model, problem, options)) from None
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
            process_group=problem.group,
            **loss_options(problem, options),
            **constraint_options(problem, options),
        )
    except (ValueError, FloatingPointError) as error:
        saved = rescue_weights(before) if problem.processes is None else "no weights were written"
        raise InputError(f"{error}; {saved}") from None
    except torch.OutOfMemoryError as error:
        raise out_of_memory(options.device, error) from None
    except KeyboardInterrupt:
        if problem.processes is not None:
            raise KeyboardInterrupt(f"during the refit; the run before it is in {options.checkpoint}") from None
        raise KeyboardInterrupt(f"during the refit; of the run before it {rescue_weights(before)}") from None
    run.extra_seconds["refit"] = time.perf_counter() - began
    after = run.model.get_weights(deterministic=True).detach().cpu().numpy()
    errors = [np.abs(relative_errors(problem.totals(w), problem.targets.values)).mean() for w in (before, after)]
    count = int((after > 0).sum())
    if problem.processes is not None:
        (count,) = problem.processes.sum(count)
    say(
        f"refit of {count:,} records: mean relative error {errors[0]:.3%} -> {errors[1]:.3%}, "
        f"{run.extra_seconds['refit']:,.1f} s for {options.refit:,} epochs"
    )


def price_options(options: argparse.Namespace) -> dict:
    """What decides how many records are kept."""
    if options.l1_lambda is not None:
        return {"l1_lambda": options.l1_lambda}
    if options.lambda_share is not None:
        return {"lambda_share": options.lambda_share}
    if options.target_records is None:
        return {"lambda_l0": options.lambda_l0}
    return {"target_records": options.target_records, "exact": options.exact}


def loss_options(problem: Problem, options: argparse.Namespace) -> dict:
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
        "hierarchy": problem.hierarchy,
    }


def constraint_options(problem: Problem, options: argparse.Namespace) -> dict:
    """What holds for the weights, the same for a fit and a refit."""
    bounds = None if options.bounds is None else read_bounds(options.bounds, problem.matrix.shape[1])
    names = ("min_weight", "max_weight_ratio", "mass", "anchor")
    return {"bounds": bounds, **{name: getattr(options, name) for name in names}}


def _interrupted(model: SparseCalibrationWeights, problem: Problem, options: argparse.Namespace) -> str:
    """Saves what there is to save and says so."""
    done = f"after {model.epoch:,} of {options.epochs:,} epochs"
    if options.checkpoint is None:
        return f"{done}; nothing saved, there was no --checkpoint"
    if model.epoch == 0:
        return f"{done}; nothing to save"
    try:
        model.save_checkpoint(options.checkpoint, problem.group)
    except OSError as error:
        return f"{done}; --checkpoint: cannot write {options.checkpoint}: {error.strerror or error}"
    return f"{done}; saved in {options.checkpoint}, --resume continues"
