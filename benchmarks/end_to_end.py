"""Whole fits of the bundled CPS problem: wall time, records kept, error of the totals that they give."""

from pathlib import Path

import numpy as np
import torch
from common import append_row, l0fast, timed
from problems import BETA, OPEN_KEEP_PROB, make_problem

PRICES = (1e-4, 1e-3, 1e-2)
EPOCHS = 1000
SEED = 0


def run(name: str, model_class, problem, lambda_l0: float, epochs: int = EPOCHS) -> dict:
    """One fit from the design weights; errors are |M w - y| / |y| of the weights without noise."""
    torch.manual_seed(SEED)  # l0-python draws its gates from the global generator
    gates = {"beta": BETA, "init_keep_prob": OPEN_KEEP_PROB, "log_weight_jitter_sd": 0.05}
    model = model_class(problem.n_records, init_weights=problem.w0, seed=SEED, **gates)
    fit = {"lambda_l0": lambda_l0, "lambda_l2": 1e-12, "lr": 0.15, "epochs": epochs, "loss_type": "relative"}
    seconds = timed(lambda: model.fit(problem.M, problem.y, **fit))
    with torch.no_grad():
        weights = model.get_weights(deterministic=True).double().numpy()
    errors = np.abs(problem.M.astype(np.float64) @ weights - problem.y) / np.abs(problem.y)
    return {
        "problem": problem.name,
        "contender": name,
        "lambda_l0": lambda_l0,
        "epochs": epochs,
        "seconds": f"{seconds:.2f}",
        "active": int(np.count_nonzero(weights)),
        "mean_relative_error": f"{errors.mean():.5f}",
        "within_10_percent": f"{(errors <= 0.1).mean():.4f}",
    }


def main(out: Path, facts: dict, with_peer: bool) -> None:
    """Runs l0fast, and l0-python if asked for, at each price; writes each row as soon as it is known."""
    contenders = {"l0fast": l0fast.SparseCalibrationWeights}
    if with_peer:
        import l0.calibration

        contenders["l0-python"] = l0.calibration.SparseCalibrationWeights
    problem = make_problem("cps40k", None, out.parent)
    print(f"\n{problem}, {EPOCHS} epochs")
    for lambda_l0 in PRICES:
        for name, model_class in contenders.items():
            row = run(name, model_class, problem, lambda_l0)
            append_row(out, {**facts, **row})
            print(
                f"  lambda_l0 {lambda_l0:g}  {name:10} {row['seconds']:>7} s  {row['active']:6,} active  "
                f"mean relative error {100 * float(row['mean_relative_error']):.2f} %  "
                f"{100 * float(row['within_10_percent']):.1f} % within 10 %",
                flush=True,
            )
