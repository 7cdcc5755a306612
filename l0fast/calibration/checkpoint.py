"""Runs on disk: one safetensors file, no pickle, written atomically."""

import json
import os
import warnings

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from .._atomic import atomic_write
from .sharding.bounds import Shard
from .sharding.group import Alone, ShardGroup, open_group
from .state import HISTORY, MOMENTS, RunState

FORMAT = "l0fast-calibration-1"
CONSTRUCTOR = ("n_features", "beta", "gamma", "zeta", "use_gates")
"""Constructor options that the meaning of the parameters depends on."""
STEERING = ("lambda_l0", "log_multiplier", "least_objective", "least_epoch", "stopped", "refitted")
"""What a record budget, early stopping and a refit leave in the RunState, besides the gates that the budget moved."""
OF_RECORDS = ("log_weight", "log_alpha", *MOMENTS)
"""Tensors [n_features]: of a shard, a process reads its part."""
UNSETTLED = ("unsettled_indices", "unsettled_log_alpha")
UNPROJECTED = ("unprojected_log_weight", "unprojected_log_alpha")


def save_anywhere(model, path, process_group=None) -> None:
    """See SparseCalibrationWeights.save_checkpoint."""
    group = open_group(model, process_group)
    with group.agreed():
        if model._run is None or model._run.signature is None:
            raise ValueError("save_checkpoint: expected a run to save, got a model that was not fitted")
    save(model, path, group)


def save(model, path, group: Alone | ShardGroup) -> None:
    """Writes the run of all processes; of several, process 0 gathers it and writes once."""
    run = model._run
    tensors = {"log_weight": model.log_weight.detach(), "log_alpha": model.log_alpha.detach(), **run.moments}
    if run.unsettled is not None:
        indices, log_alpha = run.unsettled
        tensors |= dict(zip(UNSETTLED, (indices + group.first, log_alpha), strict=True))
    tensors = {name: group.gather(x) for name, x in tensors.items()}
    with group.agreed():
        if group.is_first:
            _write(model, path, tensors, group.n_total)
            group.saved(path, run.epoch)  # even if a process is lost before all know
    group.saved(path, run.epoch)


def _write(model, path, tensors: dict[str, torch.Tensor], n_total: int) -> None:
    run = model._run
    tensors["seed"] = run.seed
    tensors["history"] = torch.from_numpy(np.concatenate([np.empty((0, len(HISTORY))), *run.metrics]))
    if model._generator is not None:
        tensors["generator"] = model._generator.get_state()
    if run.inclusion is not None:
        tensors["inclusion"] = run.inclusion
    if run.unprojected is not None:
        tensors |= dict(zip(UNPROJECTED, run.unprojected, strict=True))
    metadata = {
        "format": FORMAT,
        "epoch": str(run.epoch),
        "constructor": json.dumps(_constructor(model) | {"n_features": n_total}),
        "signature": json.dumps(run.signature),
        "steering": json.dumps({name: getattr(run, name) for name in STEERING}),
    }
    atomic_write(path, to_bytes({name: x.cpu().contiguous() for name, x in tensors.items()}, metadata))


def load(model, path) -> None:
    """See SparseCalibrationWeights.load_checkpoint. Everything is read and checked before the model changes."""
    shard = model.shard or Shard(0, model.n_features, model.n_features)
    tensors, metadata = _read(os.fspath(path), shard)
    for name, here in (_constructor(model) | {"n_features": shard.n_total}).items():
        saved = json.loads(metadata["constructor"])[name]
        if saved != here:
            raise ValueError(f"checkpoint {path}: {name} is {saved} there, {here} in this model")
    device = model.log_weight.device
    signature = json.loads(metadata["signature"])
    unsettled = _unsettled(tensors, shard, device)
    unprojected = tuple(tensors[name].to(device) for name in UNPROJECTED if name in tensors) or None
    run = RunState(
        seed=tensors["seed"].to(device),
        moments={name: tensors[name].to(device) for name in MOMENTS},
        epoch=int(metadata["epoch"]),
        metrics=[_history(tensors["history"].numpy(), signature)],
        signature=signature,
        loaded_from=os.fspath(path),
        unsettled=unsettled,
        inclusion=tensors.get("inclusion"),
        unprojected=unprojected,
        **json.loads(metadata.get("steering", "{}")),  # older files have no record budgets
    )
    with torch.no_grad():
        model.log_weight.copy_(tensors["log_weight"])
        model.log_alpha.copy_(tensors["log_alpha"])
    _restore_generator(model, tensors.get("generator"), path)
    model._run = run


def _unsettled(tensors: dict, shard: Shard, device) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Those of the shard's records; None where there are none in the whole file."""
    if UNSETTLED[0] not in tensors:
        return None
    indices, log_alpha = (tensors[name] for name in UNSETTLED)
    here = (indices >= shard.first) & (indices < shard.end)
    return (indices[here] - shard.first).to(device), log_alpha[here].to(device)


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


def _read(path: str, shard: Shard) -> tuple[dict, dict]:
    """The tensors, of the shard's records where they are about records, and the metadata."""
    with open(path, "rb"):  # an OSError of its own for a missing or unreadable file
        pass
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {
                name: file.get_slice(name)[shard.slice] if name in OF_RECORDS else file.get_tensor(name)
                for name in file.keys()
            }
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path}: not a complete safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path}: expected format {FORMAT}, got {metadata.get('format')}")
    return tensors, metadata
