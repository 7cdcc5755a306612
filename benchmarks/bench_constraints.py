"""What bounds and mass cost: the errors of a free calibration and of constrained ones, with and without pruning.

    python benchmarks/bench_constraints.py [--problem cps40k] [--records 5000] [--epochs 1000] [--ratio 5 20] [--seed 0]
        [--out benchmarks/results/constraints.csv]

One row for each constraint and way ('dense', 'gates' with exactly that many records, 'refit' of the same run): records,
mean and largest relative error, total over the initial total minus 1, largest weight over initial weight, seconds.
"""

import argparse
import time
import warnings
from pathlib import Path

import torch
from bench_budget import JITTER, LR, judged
from common import append_row, run_facts, significant
from problems import BETA, GAMMA, LAMBDA_L2, OPEN_KEEP_PROB, PROBLEMS, ZETA, Problem, make_problem

from l0fast.calibration import SparseCalibrationWeights
from l0fast.calibration.matrix import pack


def measure(problem: Problem, matrix, records: int | None, constraints: dict, epochs: int, seed: int):
    """Yields (way, seconds, model) of one run; records None for a dense one."""
    model = SparseCalibrationWeights(
        *(problem.n_records, BETA, GAMMA, ZETA, OPEN_KEEP_PROB, problem.w0, JITTER),
        use_gates=records is not None,
        seed=seed,
    )
    options = {"loss_type": "relative", "lr": LR, "lambda_l2": LAMBDA_L2, "epochs": epochs, **constraints}
    price = {"lambda_l0": 0.0} if records is None else {"target_records": records, "exact": True}
    began = time.perf_counter()
    model.fit(matrix, problem.y, **price, **options)
    yield "dense" if records is None else "gates", time.perf_counter() - began, model
    if records is not None:
        began = time.perf_counter()
        model.refit(matrix, problem.y, **options)
        yield "refit", time.perf_counter() - began, model


def held(problem: Problem, model: SparseCalibrationWeights) -> dict:
    """How far the weights are from the initial ones."""
    weights = model.get_weights(deterministic=True).detach().double().numpy()
    largest = float((weights / problem.w0).max())
    return {"total_change": significant(weights.sum() / problem.w0.sum() - 1), "largest_change": f"{largest:.9g}"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="cps40k")
    parser.add_argument("--records", type=int, nargs="+", default=[5000])
    parser.add_argument("--ratio", type=float, nargs="+", default=[5.0, 20.0])
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cps", type=Path, help="file with the full CPS problem, for cps280k")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "l0fast")
    parser.add_argument("--out", type=Path, help="CSV to add the rows to")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    problem = make_problem(options.problem, options.cps, options.cache)
    print(problem, flush=True)
    matrix = pack(problem.M)
    constraints = {"free": {}, "mass": {"mass": "conserve"}}
    constraints |= {f"mass, ratio {x:g}": {"mass": "conserve", "max_weight_ratio": x} for x in options.ratio}
    for records in (None, *options.records):
        for name, asked in constraints.items():
            for way, seconds, model in measure(problem, matrix, records, asked, options.epochs, options.seed):
                figures = judged(problem, model) | held(problem, model)
                row = {"problem": problem.name, "constraints": name, "way": way, "epochs": options.epochs}
                row |= {"seconds": significant(seconds), **figures, "seed": options.seed}
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                if options.out:
                    append_row(options.out, row | run_facts())
    return 0


if __name__ == "__main__":
    warnings.simplefilter("always")
    raise SystemExit(main())
