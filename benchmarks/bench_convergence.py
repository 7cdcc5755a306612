"""Loss against wall time: when l0fast reaches what l0-python has after its last epoch.

    python benchmarks/bench_convergence.py [--problem cps40k,cps280k] [--rounds 3] [--threads N] [--lambda-l0 1e-3]
        [--peer-epochs 1000] [--out benchmarks/results/convergence.csv]

The loss is the same for all, in float64: the objective of the weights without noise, at the model's own temperature and
at the price that was asked for, ``sum ((M w - y) / (y + 1))^2 + lambda_l0 sum P(z != 0) + lambda_l2 sum
exp(log_weight)^2``. A row of the CSV is a look at a run: its loss, and what it is made of.
The target is reached when the loss is at most the peer's with at most 2 % more records in use; 'all four' asks moreover
for a data loss and a mean error within 2 %.

l0-python runs once (minutes at 280k); its parameters on the way are kept in the cache. Its seconds are its start, as
measured then, and its epochs times the median of epochs that are timed in turn with the runs of l0fast. The clock of
l0fast begins before the matrix is packed; copying parameters for a look is not counted.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from common import CACHE, RESULTS, append_row, run_facts, significant
from convergence_runs import LR, PEER, Clock, Look, judge, peer_looks, run_l0fast, time_peer
from problems import PROBLEMS, Problem, make_problem

RECIPES = {
    "l0fast": {"lr": LR, "epochs": 1000},
    "l0fast, lr 0.3": {"lr": 0.3, "epochs": 1000},
    "l0fast, tol 5e-3": {"lr": LR, "epochs": 2000, "tol": 5e-3, "patience": 100},
    "l0fast, anneal": {"lr": 0.3, "epochs": 400, "schedule": "anneal"},
}
"""Arguments of fit. The first are l0-python's own."""
SLACK = 1.02
"""How much more than the peer's, of what must not be traded for the loss."""


def row_of(problem: Problem, contender: str, recipe: dict, lambda_l0: float, seed: int, look: Look) -> dict:
    judged = judge(problem, look, lambda_l0)
    return {
        "problem": problem.name,
        "contender": contender,
        "threads": torch.get_num_threads(),
        "lambda_l0": lambda_l0,
        "lr": recipe["lr"],
        "schedule": recipe.get("schedule", "constant"),
        "seed": seed,
        "epoch": look.epoch,
        "seconds": significant(look.clock.wall),
        "cpu_seconds": significant(look.clock.cpu),
        **{name: value if name == "active" else significant(value, 6) for name, value in judged.items()},
    }


def measure(problem: Problem, rounds: int, lambda_l0: float, peer_epochs: int) -> Iterable[dict]:
    """Yields the rows: those of l0fast as they come, those of the peer last, when its epoch has been timed."""
    looks, epochs = peer_looks(problem, peer_epochs, lambda_l0), []
    for seed in range(rounds):
        epochs.append(time_peer(problem, lambda_l0))
        for name, recipe in RECIPES.items():
            for look in run_l0fast(problem, recipe, lambda_l0, seed):
                yield row_of(problem, name, recipe, lambda_l0, seed, look)
    epoch = Clock(*(float(np.median([asdict(e)[part] for e in epochs])) for part in ("wall", "cpu")))
    start = looks[0].clock
    for look in looks:
        clock = Clock(start.wall + look.epoch * epoch.wall, start.cpu + look.epoch * epoch.cpu)
        timed = Look(look.epoch, clock, look.log_weight, look.log_alpha)
        yield row_of(problem, PEER, {"lr": LR}, lambda_l0, 0, timed)


def reached(row: dict, goal: dict, everything: bool) -> bool:
    """Whether a look is at the goal, another look."""
    also = ("active", "data_loss", "mean_error") if everything else ("active",)
    return float(row["loss"]) <= float(goal["loss"]) and all(
        float(row[name]) <= SLACK * float(goal[name]) for name in also
    )


def summary(rows: list[dict], everything: bool) -> list[str]:
    """A line for each contender: at what median epoch and time it reaches the goal, against the peer's time."""
    goal = max((row for row in rows if row["contender"] == PEER), key=lambda row: int(row["epoch"]))
    lines = []
    for name in dict.fromkeys(row["contender"] for row in rows if row["contender"] != PEER):
        runs = {row["seed"]: [] for row in rows if row["contender"] == name}
        for row in rows:
            if row["contender"] == name and reached(row, goal, everything):
                runs[row["seed"]].append(row)
        hits = [found[0] for found in runs.values() if found]
        if len(hits) < len(runs):
            lines.append(f"  {name:18} reached it in {len(hits)} of {len(runs)} runs")
            continue
        epoch, wall, cpu = (np.median([float(hit[key]) for hit in hits]) for key in ("epoch", "seconds", "cpu_seconds"))
        ratios = float(goal["seconds"]) / wall, float(goal["cpu_seconds"]) / cpu
        lines.append(
            f"  {name:18} {epoch:5,.0f} epochs, {wall:7.2f} s, CPU {cpu:7.2f} s: "
            f"{ratios[0]:,.0f} times as fast, {ratios[1]:,.0f} by CPU time"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="cps40k,cps280k", help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each recipe, with seeds 0, 1, ...")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--lambda-l0", type=float, default=1e-3)
    parser.add_argument("--peer-epochs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "convergence.csv")
    options = parser.parse_args(arguments)
    names = options.problem.split(",")
    if unknown := set(names) - set(PROBLEMS):
        parser.error(f"--problem: expected some of {', '.join(PROBLEMS)}, got {', '.join(sorted(unknown))}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    facts = run_facts()
    for name in names:
        problem = make_problem(name, None, CACHE)
        rows = list(measure(problem, options.rounds, options.lambda_l0, options.peer_epochs))
        for row in rows:
            append_row(options.out, {**facts, **row})
        goal = rows[-1]
        print(
            f"\n{problem}\n{PEER} after {goal['epoch']:,} epochs, {float(goal['seconds']):,.1f} s: "
            f"loss {goal['loss']}, data loss {goal['data_loss']}, "
            f"mean error {100 * float(goal['mean_error']):.2f} %, {goal['active']:,} active"
        )
        for everything, title in ((False, "loss, and records within 2 %"), (True, "all four")):
            print("\n".join([f" {title}:", *summary(rows, everything)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
