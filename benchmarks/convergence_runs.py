"""Runs of l0-python and l0fast that are looked at on the way, and the loss that both are judged by."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import CACHE, l0fast
from problems import BETA, LAMBDA_L2, OPEN_KEEP_PROB, Problem

from l0fast import reference

PEER = "l0-python"
LR = 0.15
LOOK_EVERY = 10
PEER_TIMED = 2
"""Epochs of the peer in each round."""


@dataclass(frozen=True)
class Clock:
    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: "Clock") -> "Clock":
        return Clock(self.wall - other.wall, self.cpu - other.cpu)


@dataclass(frozen=True)
class Look:
    """A run after so many epochs: its clock, log_weight and log_alpha [n_records]."""

    epoch: int
    clock: Clock
    log_weight: np.ndarray
    log_alpha: np.ndarray


def marks(epochs: int) -> list[int]:
    """Epochs to look at: every LOOK_EVERY first, later a twelfth more each time, and the last."""
    found = [LOOK_EVERY]
    while found[-1] < epochs:
        found.append(max(found[-1] + LOOK_EVERY, round(found[-1] * 13 / 12 / LOOK_EVERY) * LOOK_EVERY))
    return [epoch for epoch in found if epoch < epochs] + [epochs]


def judge(problem: Problem, look: Look, lambda_l0: float) -> dict[str, float]:
    """The loss and its parts, in float64."""
    log_weight, log_alpha = (torch.from_numpy(x).double() for x in (look.log_weight, look.log_alpha))
    weights = (log_weight.exp() * reference.hard_concrete(log_alpha, temperature=BETA)).numpy()
    differences = problem.M.astype(np.float64) @ weights - problem.y
    data = float(((differences / (problem.y + 1)) ** 2).sum())
    expected = float(reference.l0_penalty(log_alpha, temperature=BETA))
    return {
        "loss": data + lambda_l0 * expected + LAMBDA_L2 * float((2 * log_weight).exp().sum()),
        "data_loss": data,
        "mean_error": float(np.abs(differences / problem.y).mean()),
        "active": int((weights > 0).sum()),
        "expected_active": expected,
    }


def make_model(model_class, problem: Problem, seed: int):
    gates = {"beta": BETA, "init_keep_prob": OPEN_KEEP_PROB, "log_weight_jitter_sd": 0.05}
    return model_class(problem.n_records, init_weights=problem.w0, seed=seed, **gates)


def fit_of(lambda_l0: float, **more) -> dict:
    return {"lambda_l0": lambda_l0, "lambda_l2": LAMBDA_L2, "loss_type": "relative", **more}


def run_l0fast(problem: Problem, recipe: dict, lambda_l0: float, seed: int) -> list[Look]:
    """One run, looked at by its callback; the clock stands still meanwhile."""
    model, looks = make_model(l0fast.SparseCalibrationWeights, problem, seed), []
    wanted, away = set(marks(recipe["epochs"])), Clock(0.0, 0.0)

    def look(epoch: int, metrics: dict) -> None:
        nonlocal away
        came = Clock.now()
        # The last epoch of a run that tol has ended is one that nobody foresaw.
        if epoch in wanted or model.stopped:
            parameters = (x.detach().numpy().copy() for x in (model.log_weight, model.log_alpha))
            looks.append(Look(epoch, came - began - away, *parameters))
        gone = Clock.now() - came
        away = Clock(away.wall + gone.wall, away.cpu + gone.cpu)

    began = Clock.now()
    model.fit(problem.M, problem.y, callback=look, verbose_freq=LOOK_EVERY, **fit_of(lambda_l0, **recipe))
    return looks


# -- the peer ---------------------------------------------------------------------------------------------------------


def peer_class():
    import l0.calibration

    return l0.calibration.SparseCalibrationWeights


def run_peer(problem: Problem, epochs: int, lambda_l0: float, path: Path) -> None:
    """Runs l0-python once and saves the looks. It calls get_l0_penalty once an epoch, before the step."""
    looks, wanted = [], {0, *marks(epochs)}

    class Watched(peer_class()):
        done = 0

        def get_l0_penalty(self):
            self.look()
            return super().get_l0_penalty()

        def look(self):
            if self.done in wanted:
                parameters = (x.detach().numpy().copy() for x in (self.log_weight, self.log_alpha))
                looks.append(Look(self.done, Clock.now() - began, *parameters))
            self.done += 1

    model = make_model(Watched, problem, 0)
    began = Clock.now()
    model.fit(problem.M, problem.y, **fit_of(lambda_l0, lr=LR, epochs=epochs))
    model.look()
    columns = {name: np.stack([getattr(look, name) for look in looks]) for name in ("epoch", "log_weight", "log_alpha")}
    clocks = {"seconds": [look.clock.wall for look in looks], "cpu_seconds": [look.clock.cpu for look in looks]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **columns, **clocks)


def peer_looks(problem: Problem, epochs: int, lambda_l0: float) -> list[Look]:
    """From the cache, or from a run of it."""
    path = CACHE / f"convergence_peer_{problem.name}_{lambda_l0:g}_{epochs}.npz"
    if not path.exists():
        print(f"{PEER} runs {epochs:,} epochs of {problem.name} once; they are kept in {path}", flush=True)
        run_peer(problem, epochs, lambda_l0, path)
    with np.load(path, allow_pickle=False) as file:
        clocks = map(Clock, file["seconds"].tolist(), file["cpu_seconds"].tolist())
        return list(map(Look, file["epoch"].tolist(), clocks, file["log_weight"], file["log_alpha"]))


def time_peer(problem: Problem, lambda_l0: float) -> Clock:
    """One epoch, without the first, in which it converts the matrix."""
    model = make_model(peer_class(), problem, 0)
    model.fit(problem.M, problem.y, **fit_of(lambda_l0, lr=LR, epochs=1))
    began = Clock.now()
    model.fit(problem.M, problem.y, **fit_of(lambda_l0, lr=LR, epochs=PEER_TIMED))
    took = Clock.now() - began
    return Clock(took.wall / PEER_TIMED, took.cpu / PEER_TIMED)
