"""Runs on several processes for test_processes.py: ``python process_problem.py CASES RANK SIZE FOLDER``.

Each case fits the small survey with the records of one process; process 0 leaves FOLDER/<case>.<size>.npz.
"""

import importlib
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed as dist
from model_problem import FIT, N_RECORDS, survey

from l0fast.calibration import SparseCalibrationWeights
from l0fast.calibration.sharding import PeerError, Shard, gathered_weights, shard_bounds

MODEL = {"beta": 0.35, "init_keep_prob": 0.9, "log_weight_jitter_sd": 0.05, "seed": 5}
EPOCHS = 300
CASES = {
    "gates": {"lambda_l0": 1e-3, "lambda_l2": 1e-6},
    "budget": {"target_records": 60},
    "exact": {"target_records": 37, "exact": True, "epochs": 60},
    "refit": {"target_records": 15, "refit": True, "lambda_l2": 1e-9, "epochs": 120},
    "groups": {"lambda_share": 0.3, "epochs": 100, "target_groups": np.arange(30) % 3, "loss_type": "capped_mape"},
    "parents": {"lambda_l0": 1e-3, "lambda_l2": 1e-6, "anchor": 2.0, "epochs": 100, "tol": 1e-9, "schedule": "anneal"}
    | {"hierarchy": {"a": list(range(20)), "b": list(range(20, 30)), "all": ["a", "b"]}},
}
"""'refit' leaves processes without records in use: what counts for the survey is among the first records."""


def survey_of(case: str):
    """M and y; for 'refit' the first 40 records are worth ten times the others."""
    M, y = survey()
    if case == "refit":
        scale = np.ones(N_RECORDS)
        scale[:40] = 100
        M = M @ sp.diags_array(scale)
    return sp.csc_array(M), y


def options_of(case: str) -> dict:
    fit = {name: value for name, value in FIT.items() if name != "lambda_l0"}
    return {**fit, "epochs": EPOCHS, **CASES[case]}


def shard_model(M, rank: int, size: int) -> tuple[SparseCalibrationWeights, Shard]:
    shard = shard_bounds(M.indptr, size)[rank]
    return SparseCalibrationWeights(shard.size, shard=shard, **MODEL), shard


def fit_case(case: str, rank: int, size: int, folder: Path) -> None:
    M, y = survey_of(case)
    model, shard = shard_model(M, rank, size)
    seen = []
    group = dist.group.WORLD
    model.fit(
        *(M[:, shard.slice], y),
        **options_of(case),
        process_group=group,
        callback=lambda epoch, metrics: seen.append((epoch, metrics)),
        verbose_freq=100,
        checkpoint=folder / f"{case}.{size}.safetensors",
    )
    weights = gathered_weights(model, group)
    assert (rank == 0) == bool(seen) == (weights is not None)
    if rank == 0:
        looks = {name: [metrics[name] for _, metrics in seen] for name in ("active", "mean_error", "totals")}
        np.savez(folder / f"{case}.{size}.npz", weights=weights, loss=model.history["loss"], **looks)


def bad_input(rank: int, size: int, folder: Path) -> None:
    """Each kind of trouble raises everywhere, in time, and leaves the group in order."""
    M, y = survey_of("gates")
    model, shard = shard_model(M, rank, size)

    here, group = M[:, shard.slice], dist.group.WORLD

    def refused(kinds, words, **change):
        arguments = {"M": here, "y": y, **options_of("gates"), "epochs": 2, "process_group": group, **change}
        if "target_records" in change:
            del arguments["lambda_l0"]
        try:
            arguments.pop("model", model).fit(**arguments)
        except kinds as error:
            assert words in str(error), error
        else:
            raise AssertionError(words)

    bad = here.copy()
    bad.data[0] = np.nan if rank == 1 else 1
    refused((PeerError, ValueError), "process 1 of 2: ValueError: M: expected finite" if rank == 0 else "M: ", M=bad)
    refused(ValueError, "lr: expected the same in all processes, got 0.1 in process 0 and 0.2", lr=0.1 + 0.1 * rank)
    refused(ValueError, "y: expected the same in all processes", y=y + rank)
    other = SparseCalibrationWeights(shard.size, shard=Shard(0, shard.size, N_RECORDS), **MODEL)
    refused(ValueError, "shard: expected process 1 of 2 to have the records from", model=other)
    refused(ValueError, "expected a model made with shard=", model=SparseCalibrationWeights(shard.size, **MODEL))
    refused(TypeError, "process_group: expected one of torch.distributed", process_group="gloo")
    refused(ValueError, "process_group: expected one for a model of records", process_group=None)
    refused(ValueError, "mass: works in one process only", mass="conserve")
    refused(ValueError, "exact: 'sampled' works in one process only", target_records=9, exact="sampled")
    refused(ValueError, "holdout: works in one process only", holdout=3)
    missing = folder / "no folder" / "run.safetensors"
    refused((PeerError, OSError), "No such file", checkpoint=missing)
    (folder / f"refused.{rank}").touch()


def run(cases: str, rank: int, size: int, folder: Path) -> None:
    importlib.import_module("torch.distributed.nn")  # as cli.processes does, and for its reason
    meeting = f"file://{folder}/meet.{size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for case in cases.split(","):
            if case == "bad_input":
                bad_input(rank, size, folder)
            else:
                fit_case(case, rank, size, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
