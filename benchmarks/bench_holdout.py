"""How well weights meet totals that they were not fitted to: rotated k-fold over targets and over groups of targets.

    python benchmarks/bench_holdout.py [--problem cps40k] [--folds 5] [--by targets groups] [--epochs 1000] [--seed 0]
        [--out benchmarks/results/holdout.csv]

One row for each fold, for all of them, and for each group: mean and median relative error of the initial weights, of
the fit of all targets and of the fits without the targets, all on these targets; the share of them that the latter meet
better than the initial weights; the folds' errors on the targets that they were fitted to.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import CACHE, append_row, run_facts, significant
from problems import BETA, GAMMA, LAMBDA_L2, OPEN_KEEP_PROB, PROBLEMS, ZETA, Problem, make_problem

from l0fast.calibration import Holdout, SparseCalibrationWeights
from l0fast.calibration.holdout_table import HoldoutResult
from l0fast.calibration.matrix import pack

LR, LAMBDA_L0, JITTER = 0.15, 1e-3, 0.05
ERRORS = [f"{whose}_{what}" for whose in ("initial", "fit", "held_out") for what in ("mean", "median")]


def group_labels(problem: Problem, path: Path) -> np.ndarray:
    """Labels [n_targets] of the problem's groups: of the file where it has them, else 20 of about one size."""
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            if "groups" in file.files and len(file["groups"]) == len(problem.y):
                return file["groups"]
    return np.arange(len(problem.y)) % 20


def held_out(problem: Problem, groups: np.ndarray, holdout: Holdout, epochs: int, seed: int) -> HoldoutResult:
    """The groups decide the folds and the table; every target counts the same in the fit."""
    model = SparseCalibrationWeights(
        problem.n_records, *(BETA, GAMMA, ZETA, OPEN_KEEP_PROB, problem.w0, JITTER), seed=seed
    )
    model.fit(
        *(pack(problem.M), problem.y, LAMBDA_L0, LAMBDA_L2, LR, epochs, "relative"),
        target_groups=groups,
        normalize_groups=False,
        holdout=holdout,
    )
    return model.held_out


def rows_of(result: HoldoutResult):
    """Yields (what, label, figures)."""
    for row in result.table():
        yield ("all", "", row) if row["fold"] is None else ("fold", str(row["fold"] + 1), row)
    for row in result.group_table():
        yield "group", row["group"], row


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="cps40k")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--by", nargs="+", choices=("targets", "groups"), default=["targets", "groups"])
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cps", type=Path, help="file with the full CPS problem, for cps280k")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, help="CSV to add the rows to")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    problem = make_problem(options.problem, options.cps, options.cache)
    bundled = Path(__file__).resolve().parent.parent / "l0fast" / "data" / "cps_tax_problem_40k.npz"
    groups = group_labels(problem, {"cps40k": bundled}.get(options.problem, options.cache / "cps_280k.npz"))
    print(f"{problem}, {len(np.unique(groups))} groups", flush=True)
    for by in options.by:
        began = time.perf_counter()
        result = held_out(problem, groups, Holdout(options.folds, by, options.seed), options.epochs, options.seed)
        seconds = time.perf_counter() - began
        print(f"{options.folds} folds of {by}, {seconds:.1f} s with the fit of all targets\n{result}", flush=True)
        for what, label, figures in rows_of(result) if options.out else ():
            row = {"problem": problem.name, "by": by, "folds": options.folds, "epochs": options.epochs}
            row |= {"seed": options.seed, "row": what, "label": label, "targets": figures["targets"]}
            row |= {key: significant(figures[key]) for key in (*ERRORS, "better_share")}
            row |= {key: significant(figures.get(key)) for key in ("own_mean", "own_median")}
            row |= {"records": figures.get("records", ""), "seconds": significant(seconds) if what == "all" else ""}
            append_row(options.out, row | run_facts())
    return 0


if __name__ == "__main__":
    sys.exit(main())
