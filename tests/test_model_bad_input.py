"""Bad input to the model: one clear message, and nothing has changed."""

import numpy as np
import pytest
import torch
from model_problem import N_RECORDS, N_TARGETS, make
from scipy import sparse as sp

from l0fast.calibration import SparseCalibrationWeights


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(n_features=0), ValueError, r"n_features: expected at least 1, got 0"),
        (dict(n_features=2.5), TypeError, r"n_features: expected an int, got float"),
        (dict(beta=0), ValueError, r"beta: expected a positive number, got 0"),
        (dict(gamma=0.1), ValueError, r"gamma: expected a negative number"),
        (dict(zeta=0.9), ValueError, r"zeta: expected a number above 1"),
        (dict(log_weight_jitter_sd=-1), ValueError, r"log_weight_jitter_sd"),
        (dict(log_alpha_jitter_sd=float("nan")), ValueError, r"log_alpha_jitter_sd"),
        (dict(init_keep_prob=1.2), ValueError, r"init_keep_prob: expected probabilities in \[0, 1\], got 1.2"),
        (dict(init_keep_prob=[0.5] * 3), ValueError, r"init_keep_prob array must have shape \(400,\), got \(3,\)"),
        (dict(init_keep_prob="high"), TypeError, r"init_keep_prob: expected a number or an array"),
        (dict(init_weights=-1.0), ValueError, r"init_weights: expected finite weights of at least 0, got -1.0"),
        (dict(init_weights=[1.0] * 3), ValueError, r"init_weights array must have shape \(400,\)"),
        (dict(init_weights=float("nan")), ValueError, r"init_weights: .*nan at record 0"),
    ],
)
def test_bad_constructor(options, error, message):
    with pytest.raises(error, match=message):
        SparseCalibrationWeights(**{"n_features": N_RECORDS, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(lambda_l0=-1), ValueError, r"lambda_l0: expected a finite non-negative number, got -1"),
        (dict(lambda_l2=float("inf")), ValueError, r"lambda_l2"),
        (dict(lr=float("nan")), ValueError, r"lr"),
        (dict(epochs=-1), ValueError, r"epochs: expected at least 0"),
        (dict(epochs=1.5), TypeError, r"epochs: expected an int, got float"),
        (dict(verbose_freq=0), ValueError, r"verbose_freq: expected at least 1"),
        (dict(checkpoint_freq=0), ValueError, r"checkpoint_freq"),
        (dict(verbose="loud"), ValueError, r'verbose: expected True, False or "bar"'),
        (dict(callback=3), TypeError, r"callback: expected a function"),
        (dict(loss_type="huber"), ValueError, r"loss_type: expected one of"),
        (dict(y=np.ones(3)), ValueError, r"y: expected shape \(30,\)"),
        (dict(y=np.full(N_TARGETS, np.nan)), ValueError, r"y: expected finite values, got nan at target 0"),
        (dict(M=sp.csr_matrix((N_TARGETS, 3))), ValueError, r"M: expected 400 columns \(n_features\)"),
        (dict(M=sp.csr_matrix((0, N_RECORDS)), y=[]), ValueError, r"M: expected at least one target"),
    ],
)
def test_bad_fit_changes_nothing(problem, options, error, message):
    M, y = problem
    model = make(log_weight_jitter_sd=0.1)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(error, match=message):
        model.fit(**{"M": M, "y": y, "epochs": 5, **options})
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.epoch == 0


def test_new_arguments_are_keyword_only(problem):
    M, y = problem
    with pytest.raises(TypeError, match="positional"):
        make().fit(M, y, 0.01, 0.0, 0.01, 1, "mse", False, 100, None, True, None, np.ones(N_TARGETS))


def test_nan_parameters_are_refused(problem):
    M, y = problem
    model = make()
    with torch.no_grad():
        model.log_alpha[3] = float("nan")
    with pytest.raises(ValueError, match=r"log_alpha: expected finite parameters, got nan at record 3"):
        model.fit(M, y, epochs=1)
