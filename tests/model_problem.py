"""A small calibration problem for the tests of the model."""

import numpy as np
from scipy import sparse as sp

from l0fast.calibration import SparseCalibrationWeights

N_TARGETS, N_RECORDS = 30, 400


def survey():
    generator = np.random.default_rng(7)
    M = sp.random(N_TARGETS, N_RECORDS, density=0.2, format="csr", random_state=generator, dtype=np.float64)
    return M, M @ generator.uniform(0.5, 1.5, N_RECORDS)


def make(**options):
    return SparseCalibrationWeights(N_RECORDS, **{"beta": 0.35, "init_keep_prob": 0.9, "seed": 5, **options})


FIT = {"lambda_l0": 1e-4, "lr": 0.1, "loss_type": "relative"}
