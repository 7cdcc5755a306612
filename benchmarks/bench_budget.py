"""What a record budget costs and gives: one run for each budget, refitted; beside it a random subset, refitted too.

    python benchmarks/bench_budget.py [--problem cps40k] [--records 20000 5000 1000] [--epochs 1000] [--seed 0]
        [--peer fit|epochs] [--l1 1e-5 1e-4 1e-3] [--out benchmarks/results/budget.csv]

One row for each budget and way ('gates', 'refit' of the same run, 'random subset, refit'): records; gates that were
moved at the end, since steering had not closed them; mean and largest relative error; seconds of this step; Kish's
effective sample size and the largest weight over the median. With --peer two more: a bisection over the price of a
record with l0fast and with l0-python, ten fits each; l0-python's time is ten times that of one fit ('fit') or of a few
epochs ('epochs', which have no result), see budget_peer.py. With --l1 records are also chosen by an L1 norm at these
prices; such a row's budget is what the price came to. budget_figure.py draws the CSV.
"""

import argparse
import time
import warnings
from pathlib import Path

import budget_peer
import numpy as np
import torch
from budget_peer import JITTER, LR
from common import append_row, run_facts, significant
from problems import BETA, GAMMA, LAMBDA_L2, OPEN_KEEP_PROB, PROBLEMS, ZETA, Problem, make_problem

from l0fast.calibration import SparseCalibrationWeights
from l0fast.calibration.diagnostics import quality, weight_statistics
from l0fast.calibration.matrix import pack

NO_RESULT = dict.fromkeys(("records", "mean_error", "max_error", "ess", "largest_ratio"), "")


def model_of(problem: Problem, keep, initial, seed: int, jitter: float = 0.0) -> SparseCalibrationWeights:
    return SparseCalibrationWeights(
        problem.n_records,
        *(BETA, GAMMA, ZETA, keep, initial, jitter),
        seed=seed,
    )


def judged(problem: Problem, model: SparseCalibrationWeights) -> dict:
    """Errors of the weights in double precision, and how uneven they are."""
    with torch.no_grad():
        weights = model.get_weights(deterministic=True).double().numpy()
    errors, uneven = quality(problem.M @ weights, problem.y), weight_statistics(weights)
    return {
        "records": uneven["count"],
        "mean_error": significant(errors["mean_error"]),
        "max_error": significant(errors["max_error"]),
        "ess": significant(uneven["ess"]),
        "largest_ratio": significant(uneven["largest_ratio"]),
    }


def measure(problem: Problem, matrix, k: int, epochs: int, seed: int, lambda_l2: float):
    """Yields (way, seconds, gates moved at the end, figures)."""
    model = model_of(problem, OPEN_KEEP_PROB, problem.w0, seed, JITTER)
    loss = {"loss_type": "relative", "lr": LR, "lambda_l2": lambda_l2, "epochs": epochs}
    began = time.perf_counter()
    model.fit(matrix, problem.y, target_records=k, **loss)
    seconds = time.perf_counter() - began
    moved = 0 if model._run.unsettled is None else len(model._run.unsettled[0])
    yield "gates", seconds, moved, judged(problem, model)

    began = time.perf_counter()
    model.refit(matrix, problem.y, **loss)
    yield "refit", time.perf_counter() - began, 0, judged(problem, model)

    chosen = np.random.default_rng(seed).choice(problem.n_records, k, replace=False)
    keep = np.zeros(problem.n_records)
    keep[chosen] = 1
    model = model_of(problem, keep, problem.w0 * problem.n_records / k, seed)
    began = time.perf_counter()
    model.refit(matrix, problem.y, **loss)
    yield "random subset, refit", time.perf_counter() - began, 0, judged(problem, model)


def measure_l1(problem: Problem, matrix, price: float, epochs: int, seed: int, lambda_l2: float):
    """Yields the same for records chosen by an L1 norm at that price, and for their refit."""
    model = model_of(problem, OPEN_KEEP_PROB, problem.w0, seed)
    loss = {"loss_type": "relative", "lr": LR, "lambda_l2": lambda_l2, "epochs": epochs}
    began = time.perf_counter()
    model.fit(matrix, problem.y, l1_lambda=price, **loss)
    yield f"L1 (price {price:g})", time.perf_counter() - began, 0, judged(problem, model)
    began = time.perf_counter()
    model.refit(matrix, problem.y, **loss)
    yield f"L1, refit (price {price:g})", time.perf_counter() - began, 0, judged(problem, model)


def measure_peer(problem: Problem, matrix, k: int, epochs: int, seed: int, how: str):
    """Yields the same for the bisections."""
    price, seconds = budget_peer.bisected_price(problem, matrix, k, epochs, seed)
    model, _ = budget_peer.fitted(SparseCalibrationWeights, problem, matrix, price, epochs, seed)
    yield "bisection, l0fast", seconds, 0, judged(problem, model)
    if how == "epochs":
        one = budget_peer.seconds_of_epochs(problem, epochs, seed)
        yield "bisection, l0-python (10 x epochs)", budget_peer.FITS * one, 0, NO_RESULT
    else:
        model, one = budget_peer.measured(problem, price, epochs, seed)
        yield "bisection, l0-python (10 x one fit)", budget_peer.FITS * one, 0, judged(problem, model)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="cps40k")
    parser.add_argument("--records", type=int, nargs="*", default=[20_000, 5_000, 1_000])
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument(
        "--lambda-l2", type=float, default=LAMBDA_L2, help="price of a squared weight (--peer keeps its own)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--peer", choices=("fit", "epochs"), help="bisections too, l0-python's by one fit or epochs")
    parser.add_argument("--l1", type=float, nargs="*", default=[], metavar="PRICE", help="choose by an L1 norm, too")
    parser.add_argument("--cps", type=Path, help="file with the full CPS problem, for cps280k")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "l0fast")
    parser.add_argument("--out", type=Path, help="CSV to add the rows to")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    problem = make_problem(options.problem, options.cps, options.cache)
    print(problem, flush=True)
    matrix = pack(problem.M)
    common = (options.epochs, options.seed, options.lambda_l2)
    runs = [(k, measure(problem, matrix, k, *common)) for k in options.records]
    if options.peer:
        peers = (options.epochs, options.seed, options.peer)
        runs += [(k, measure_peer(problem, matrix, k, *peers)) for k in options.records]
    runs += [(None, measure_l1(problem, matrix, price, *common)) for price in options.l1]
    for k, ways in runs:
        for way, seconds, moved, figures in ways:
            budget = figures["records"] if k is None else k
            row = {"problem": problem.name, "budget": budget, "way": way, "epochs": options.epochs}
            row["lambda_l2"] = options.lambda_l2
            row |= {"seconds": significant(seconds), "moved": moved, **figures, "seed": options.seed}
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            if options.out:
                append_row(options.out, row | run_facts())
    return 0


if __name__ == "__main__":
    warnings.simplefilter("always")
    raise SystemExit(main())
