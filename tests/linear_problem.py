"""A small sparse regression for the tests of SparseL0Linear."""

import numpy as np
import torch
from scipy import sparse as sp

from l0fast.sparse import SparseL0Linear

N_SAMPLES, N_FEATURES = 300, 60
SUPPORT = [3, 11, 20, 41, 58]
COEFFICIENTS = [4.0, -3.0, 2.5, -5.0, 3.5]
INTERCEPT = 2.0


def regression(noise=0.05, seed=7):
    """X [300, 60] and y = X w + 2 + noise with five coefficients of either sign."""
    generator = np.random.default_rng(seed)
    X = sp.random(N_SAMPLES, N_FEATURES, density=0.25, format="csr", random_state=generator)
    X.data = generator.normal(size=X.nnz)
    w = np.zeros(N_FEATURES)
    w[SUPPORT] = COEFFICIENTS
    return X, X @ w + INTERCEPT + noise * generator.normal(size=N_SAMPLES)


def make(**options):
    return SparseL0Linear(N_FEATURES, **{"seed": 5, **options})


def without_noise(model):
    """The same model with gates that are always open: the bound stops their gradient."""
    with torch.no_grad():
        model.log_alpha.fill_(30)
    return model


def r_squared(model, X, y):
    residual = y - model.predict(X).numpy()
    return 1 - residual.var() / y.var()


FIT = {"lambda_reg": 0.02, "lr": 0.03, "epochs": 1500}
"""Enough for the gates to settle on the planted support."""
