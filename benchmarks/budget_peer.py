"""What a record budget costs with l0-python: whole fits over prices of a record, until one ends near the budget.

Ten fits halve a bracket of six decades down to 1.4 % of a price. Their time is ten times that of one fit, and that fit
is real: it runs at the price that the same bisection with l0fast ends at, since both keep nearly the same number of
records at the same price. Where even one fit takes too long, its epochs are extrapolated from a few.
"""

import math
import time

import numpy as np
import torch
from problems import BETA, LAMBDA_L2, OPEN_KEEP_PROB, Problem

from l0fast.calibration import SparseCalibrationWeights

LR = 0.15
JITTER = 0.05
FITS = 10
LOWEST, HIGHEST = 1e-6, 1.0
"""Bracket of the price of a record."""


def fitted(model_class, problem: Problem, matrix, price: float, epochs: int, seed: int):
    """A model after one fit from the design weights, and the seconds of the fit."""
    torch.manual_seed(seed)  # l0-python draws its gates from the global generator
    model = model_class(
        problem.n_records,
        beta=BETA,
        init_keep_prob=OPEN_KEEP_PROB,
        init_weights=problem.w0,
        log_weight_jitter_sd=JITTER,
        seed=seed,
    )
    fit = {"lambda_l0": price, "lambda_l2": LAMBDA_L2, "lr": LR, "epochs": epochs, "loss_type": "relative"}
    began = time.perf_counter()
    model.fit(matrix, problem.y, **fit)
    return model, time.perf_counter() - began


def records(model) -> int:
    with torch.no_grad():
        return int((model.get_weights(deterministic=True) > 0).sum())


def bisected_price(problem: Problem, matrix, k: int, epochs: int, seed: int) -> tuple[float, float]:
    """The price among FITS of l0fast whose fit ends nearest to k records, and the seconds of all of them."""
    low, high, seconds, best = math.log(LOWEST), math.log(HIGHEST), 0.0, (math.inf, 0.0)
    for _ in range(FITS):
        middle = (low + high) / 2
        model, taken = fitted(SparseCalibrationWeights, problem, matrix, math.exp(middle), epochs, seed)
        seconds += taken
        count = records(model)
        best = min(best, (abs(count - k), math.exp(middle)))
        low, high = (middle, high) if count > k else (low, middle)
    return best[1], seconds


def measured(problem: Problem, price: float, epochs: int, seed: int):
    """l0-python at that price: the model and the seconds of its fit."""
    from l0.calibration import SparseCalibrationWeights as Peer

    return fitted(Peer, problem, problem.M, price, epochs, seed)


def seconds_of_epochs(problem: Problem, epochs: int, seed: int, samples: int = 5) -> float:
    """Seconds of l0-python's fit of so many epochs, from the median of a few fits of 2 and of 6 epochs."""
    short, long = ([measured(problem, 0.0, count, seed)[1] for _ in range(samples)] for count in (2, 6))
    return float(np.median(np.array(long) - np.array(short))) / 4 * epochs
