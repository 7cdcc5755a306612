"""Runs on disk: one safetensors file, no pickle, written atomically."""

import json
import os
import warnings

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from .._atomic import atomic_write
from .state import HISTORY, MOMENTS, RunState

FORMAT = "l0fast-calibration-1"
CONSTRUCTOR = ("n_features", "beta", "gamma", "zeta", "use_gates")
"""Constructor options that the meaning of the parameters depends on."""
STEERING = ("lambda_l0", "log_multiplier", "least_objective", "least_epoch", "stopped", "refitted")
"""What a record budget, early stopping and a refit leave in the RunState, besides the gates that the budget moved."""
UNSETTLED = ("unsettled_indices", "unsettled_log_alpha")


def save(model, path) -> None:
    """See SparseCalibrationWeights.save_checkpoint."""
    run = model._run
    if run is None or run.signature is None:
        raise ValueError("save_checkpoint: expected a run to save, got a model that was not fitted")
    tensors = {
        "log_weight": model.log_weight.detach(),
        "log_alpha": model.log_alpha.detach(),
        "seed": run.seed,
        **run.moments,
        "history": torch.from_numpy(np.concatenate([np.empty((0, len(HISTORY))), *run.metrics])),
    }
    if model._generator is not None:
        tensors["generator"] = model._generator.get_state()
    if run.unsettled is not None:
        tensors |= dict(zip(UNSETTLED, run.unsettled, strict=True))
    metadata = {
        "format": FORMAT,
        "epoch": str(run.epoch),
        "constructor": json.dumps(_constructor(model)),
        "signature": json.dumps(run.signature),
        "steering": json.dumps({name: getattr(run, name) for name in STEERING}),
    }
    atomic_write(path, to_bytes({name: x.cpu().contiguous() for name, x in tensors.items()}, metadata))


def load(model, path) -> None:
    """See SparseCalibrationWeights.load_checkpoint. Everything is read and checked before the model changes."""
    tensors, metadata = _read(os.fspath(path))
    for name, here in _constructor(model).items():
        saved = json.loads(metadata["constructor"])[name]
        if saved != here:
            raise ValueError(f"checkpoint {path}: {name} is {saved} there, {here} in this model")
    device = model.log_weight.device
    signature = json.loads(metadata["signature"])
    unsettled = [tensors[name].to(device) for name in UNSETTLED if name in tensors]
    run = RunState(
        seed=tensors["seed"].to(device),
        moments={name: tensors[name].to(device) for name in MOMENTS},
        epoch=int(metadata["epoch"]),
        metrics=[_history(tensors["history"].numpy(), signature)],
        signature=signature,
        loaded_from=os.fspath(path),
        unsettled=tuple(unsettled) or None,
        **json.loads(metadata.get("steering", "{}")),  # older files have no record budgets
    )
    with torch.no_grad():
        model.log_weight.copy_(tensors["log_weight"])
        model.log_alpha.copy_(tensors["log_alpha"])
    _restore_generator(model, tensors.get("generator"), path)
    model._run = run


def _restore_generator(model, state: torch.Tensor | None, path) -> None:
    """Takes over the saved generator. One of the CPU and one of a GPU have states that mean nothing to each other."""
    if model._generator is None or state is None:
        return
    if state.numel() != model._generator.get_state().numel():
        warnings.warn(
            f"checkpoint {path}: saved on another kind of device than {model._generator.device}; the run continues "
            "with its own noise, draws after it start from this model's seed",
            RuntimeWarning,
            stacklevel=4,
        )
        return
    model._generator.set_state(state)


def compare_signatures(run: RunState, signature: dict) -> None:
    """Raises ValueError with the first name in which a run read from a checkpoint differs from the call."""
    if run.loaded_from is None:
        return
    for name, here in signature.items():
        saved = run.signature.get(name)
        if saved != here:
            raise ValueError(
                f"checkpoint {run.loaded_from}: {name} is not that of the saved run ({saved} there, {here} here)"
            )
    run.loaded_from = None


def _history(table: np.ndarray, signature: dict) -> np.ndarray:
    """[epochs, 5]: files from before record budgets lack the price of a gate, which was the option's all along."""
    if table.shape[1] == len(HISTORY):
        return table
    return np.column_stack([table, np.full(len(table), signature["lambda_l0"])])


def _constructor(model) -> dict:
    return {name: getattr(model, name) for name in CONSTRUCTOR}


def _read(path: str) -> tuple[dict, dict]:
    with open(path, "rb"):  # an OSError of its own for a missing or unreadable file
        pass
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path}: not a complete safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path}: expected format {FORMAT}, got {metadata.get('format')}")
    return tensors, metadata
