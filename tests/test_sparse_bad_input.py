"""Bad input to SparseL0Linear: one clear message, and nothing has changed."""

import numpy as np
import pytest
import torch
from linear_problem import N_FEATURES, N_SAMPLES, make, regression
from scipy import sparse as sp

from l0fast.sparse import SparseL0Linear

ONES = np.ones(N_SAMPLES)


def with_value(array, value, place=4):
    array = np.array(array, dtype=np.float64)
    array.flat[place] = value
    return array


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(n_features=0), ValueError, r"n_features: expected at least 1, got 0"),
        (dict(n_features=2.5), TypeError, r"n_features: expected an int, got float"),
        (dict(beta=0), ValueError, r"beta: expected a positive number, got 0"),
        (dict(gamma=0.1), ValueError, r"gamma: expected a negative number"),
        (dict(zeta=0.9), ValueError, r"zeta: expected a number above 1"),
        (dict(init_keep_prob=1.2), ValueError, r"init_keep_prob: expected probabilities in \[0, 1\], got 1.2"),
        (dict(init_keep_prob=[0.5] * 3), ValueError, r"init_keep_prob array must have shape \(60,\), got \(3,\)"),
    ],
)
def test_bad_constructor(options, error, message):
    with pytest.raises(error, match=message):
        SparseL0Linear(**{"n_features": N_FEATURES, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(lambda_reg=-1), ValueError, r"lambda_reg: expected a finite non-negative number, got -1"),
        (dict(lambda_l0=-1), ValueError, r"lambda_l0: expected a finite non-negative number, got -1"),
        (dict(lambda_reg=0.01, lambda_l0=0.01), ValueError, r"lambda_l0: expected one of .* got both"),
        (dict(lambda_l2=float("inf")), ValueError, r"lambda_l2: expected a finite non-negative number"),
        (dict(lr=float("nan")), ValueError, r"lr: expected a finite non-negative number"),
        (dict(epochs=-1), ValueError, r"epochs: expected at least 0"),
        (dict(epochs=1.5), TypeError, r"epochs: expected an int, got float"),
        (dict(verbose_freq=0), ValueError, r"verbose_freq: expected at least 1"),
        (dict(verbose="loud"), ValueError, r'verbose: expected True, False or "bar"'),
        (dict(callback=3), TypeError, r"callback: expected a function"),
        (dict(resume=True, warm_start=True), ValueError, r"warm_start: expected at most one of resume and warm_start"),
        (dict(y=np.ones(3)), ValueError, r"y: expected shape \(300,\), one for each row of X, got \(3,\)"),
        (dict(y=np.ones((N_SAMPLES, 2))), ValueError, r"y: expected shape \(300,\), .* got \(300, 2\)"),
        (dict(y=with_value(ONES, np.nan)), ValueError, r"y: expected finite values, got nan at row of X 4"),
        (dict(y=torch.full((N_SAMPLES,), torch.inf)), ValueError, r"y: expected finite values, got inf at row of X 0"),
        (dict(y=ONES.astype(complex)), TypeError, r"y: expected real numbers"),
        (dict(y=["a"] * N_SAMPLES), TypeError, r"y: expected numbers, got list"),
        (dict(sample_weight=np.ones(3)), ValueError, r"sample_weight: expected shape \(300,\)"),
        (dict(sample_weight=with_value(ONES, -1)), ValueError, r"sample_weight: expected non-negative .* at row 4"),
        (dict(sample_weight=0 * ONES), ValueError, r"sample_weight: expected at least one positive weight"),
        (dict(X_sparse=sp.csr_matrix((N_SAMPLES, 3))), ValueError, r"X: expected 60 columns .*got shape \(300, 3\)"),
        (dict(X_sparse=sp.csr_matrix((0, N_FEATURES)), y=[]), ValueError, r"X: expected at least one row"),
        (dict(X_sparse=np.ones(N_FEATURES)), ValueError, r"X: expected 2 dimensions, got 1"),
        (dict(X_sparse="X"), TypeError, r"X: expected a scipy sparse matrix"),
        (
            dict(X_sparse=sp.csr_array(with_value(np.ones((N_SAMPLES, N_FEATURES)), np.nan, 2 * N_FEATURES + 1))),
            ValueError,
            r"X: expected finite values, got nan at row 2, column 1",
        ),
    ],
)
def test_bad_fit_changes_nothing(options, error, message):
    X, y = regression()
    model = make()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    generator = model._generator.get_state()
    with pytest.raises(error, match=message):
        model.fit(**{"X_sparse": X, "y": y, "epochs": 5, **options})
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.epoch == 0 and torch.equal(model._generator.get_state(), generator)


@pytest.mark.parametrize(
    "X", [sp.csr_array((4, 3)), np.ones((0, 3)), torch.ones(4, 3)], ids=["array", "empty", "torch"]
)
def test_predict_refuses_other_columns(X):
    with pytest.raises(ValueError, match=r"X: expected 60 columns \(n_features\), got shape \(\d, 3\)"):
        make().predict(X)


def test_nan_in_the_matrix_is_no_prediction():
    with pytest.raises(ValueError, match=r"X: expected finite values, got nan at row 0, column 3"):
        make().predict(with_value(np.zeros((2, N_FEATURES)), np.nan, 3))


def test_new_arguments_are_keyword_only():
    X, y = regression()
    with pytest.raises(TypeError, match="positional"):
        make().fit(X, y, 0.01, 0.01, 1, False, 100, 0.01)


@pytest.mark.parametrize("threshold", [-0.1, 2, float("nan")])
def test_bad_threshold(threshold):
    with pytest.raises(ValueError, match=r"threshold: expected a gate value in \[0, 1\]"):
        make().get_selected_features(threshold)


def test_nan_parameters_are_refused_where_they_are_kept():
    X, y = regression()
    model = make()
    with torch.no_grad():
        model.weight[3] = float("nan")
    with pytest.raises(ValueError, match=r"weight: expected finite parameters, got nan"):
        model.fit(X, y, epochs=1, warm_start=True)
    model.fit(X, y, epochs=1)  # draws new ones
    with torch.no_grad():
        model.log_alpha[3] = float("nan")
    with pytest.raises(ValueError, match=r"log_alpha: expected finite parameters, got nan"):
        model.fit(X, y, epochs=1)
