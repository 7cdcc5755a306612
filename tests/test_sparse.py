"""SparseL0Linear: what it fits, from what input, and how a run goes on."""

import copy
import os
import signal
import threading

import numpy as np
import pytest
import torch
from linear_problem import COEFFICIENTS, FIT, INTERCEPT, N_FEATURES, SUPPORT, make, r_squared, regression, without_noise
from scipy import sparse as sp

import l0fast
from l0fast.sparse import SparseL0Linear


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_recovers_a_planted_support(fit_intercept):
    X, y = regression()
    y = y if fit_intercept else y - INTERCEPT
    model = make(fit_intercept=fit_intercept)
    assert model.fit(X, y, **FIT) is model
    assert model.get_selected_features().tolist() == SUPPORT
    assert model.get_sparsity() == pytest.approx(1 - len(SUPPORT) / N_FEATURES)
    coefficients = model.get_coefficients()
    assert coefficients.shape == (N_FEATURES,) and not coefficients.requires_grad
    np.testing.assert_allclose(coefficients[SUPPORT], COEFFICIENTS, atol=0.05)
    assert coefficients.count_nonzero() == len(SUPPORT)
    assert r_squared(model, X, y) > 0.999
    if fit_intercept:
        assert model.bias.item() == pytest.approx(INTERCEPT, abs=0.03)
    else:
        assert model.bias is None and set(model.state_dict()) == {"weight", "log_alpha"}


def test_prediction_is_the_product_with_the_coefficients():
    X, y = regression()
    model = make().fit(X, y, epochs=20)
    expected = X @ model.get_coefficients().double().numpy() + model.bias.item()
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5, atol=1e-5)


def matrices():
    X, _ = regression()
    dense, torch_dense = X.toarray(), torch.from_numpy(X.toarray()).float()
    yield from (pytest.param(kind(X), id=kind.__name__) for kind in (sp.csr_matrix, sp.csc_matrix, sp.coo_matrix))
    yield from (pytest.param(kind(X), id=kind.__name__) for kind in (sp.csr_array, sp.csc_array, sp.coo_array))
    yield pytest.param(dense, id="NumPy")
    yield pytest.param(torch_dense, id="torch dense")
    yield pytest.param(torch_dense.double().to_sparse(), id="torch coo float64")
    yield pytest.param(torch_dense.to_sparse_csr(), id="torch csr")
    yield pytest.param(torch_dense.to_sparse_csc(), id="torch csc")


@pytest.mark.parametrize("given", list(matrices()))
def test_every_kind_of_matrix_gives_the_same(given):
    X, y = regression()
    expected, got = make().fit(X, y, epochs=10), make().fit(given, y, epochs=10)
    assert torch.equal(got.weight, expected.weight) and torch.equal(got.bias, expected.bias)
    assert torch.equal(got.predict(given), expected.predict(X))


def test_single_rows_and_no_rows():
    X, y = regression()
    model = make().fit(X, y, epochs=10)
    torch.testing.assert_close(model.predict(X[:1]), model.predict(X)[:1])
    assert model.predict(X[:0]).shape == (0,)


@pytest.mark.parametrize(
    "form",
    [
        lambda y: torch.from_numpy(y),
        lambda y: torch.from_numpy(y).float(),
        lambda y: y[:, None],
        lambda y: torch.from_numpy(y)[:, None],
        lambda y: y.tolist(),
    ],
)
def test_forms_of_y(form):
    X, y = regression()
    y = np.round(y * 8) / 8  # exact in float32
    expected, got = make().fit(X, y, epochs=10), make().fit(X, form(y), epochs=10)
    assert torch.equal(got.weight, expected.weight)


def test_integer_and_boolean_y():
    X, y = regression()
    labels = (y > y.mean()).astype(np.int64)
    expected = make().fit(X, labels.astype(np.float64), epochs=10)
    for form in (labels, torch.from_numpy(labels), labels.astype(bool)):
        assert torch.equal(make().fit(X, form, epochs=10).weight, expected.weight)


def test_without_noise_it_is_least_squares_and_ridge():
    """All gates open and no price: the closed forms, the intercept outside the penalty."""
    X, y = regression(noise=1.0)
    A, weights = X.toarray(), np.random.default_rng(1).uniform(0.2, 3, len(y))
    for ridge in (0.0, 0.3):
        for sample_weight in (None, weights):
            omega = np.ones(len(y)) if sample_weight is None else weights
            omega = omega / omega.sum()
            design = np.column_stack([A, np.ones(len(y))])
            shrink = ridge * np.diag([*np.ones(N_FEATURES), 0.0])
            expected = np.linalg.solve(design.T @ (omega[:, None] * design) + shrink, design.T @ (omega * y))
            model = without_noise(make())
            settings = {"lambda_l2": ridge, "sample_weight": sample_weight}
            model.fit(X, y, lr=0.02, epochs=2000, **settings)
            model.fit(X, y, lr=5e-4, epochs=2000, warm_start=True, **settings)
            np.testing.assert_allclose([*model.get_coefficients(), model.bias.item()], expected, atol=2e-3)


def test_sample_weights_are_repeated_rows():
    X, y = regression()
    times = np.arange(len(y)) % 3
    repeated = np.repeat(np.arange(len(y)), times)
    a = without_noise(make()).fit(X, y, epochs=100, sample_weight=times)
    b = without_noise(make()).fit(X[repeated], y[repeated], epochs=100)
    torch.testing.assert_close(a.weight, b.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.bias, b.bias, rtol=1e-4, atol=1e-5)


def test_the_seed_governs_everything():
    X, y = regression()
    runs = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        model = make().fit(X, y, epochs=30)
        runs.append([*model.state_dict().values(), model.forward(X)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    other = make(seed=6).fit(X, y, epochs=30)
    assert not torch.equal(other.weight, model.weight)


@pytest.mark.parametrize("threads", [1, 4])
def test_same_bits_on_any_number_of_threads(native, threads):
    generator = np.random.default_rng(3)
    X = sp.random(700, 20_000, density=0.02, format="csr", random_state=generator)
    y = generator.normal(size=700)
    expected = SparseL0Linear(20_000, seed=1).fit(X, y, epochs=5)
    torch.set_num_threads(threads)
    got = SparseL0Linear(20_000, seed=1).fit(X, y, epochs=5)
    assert all(
        torch.equal(a, b) for a, b in zip(expected.state_dict().values(), got.state_dict().values(), strict=True)
    )


def test_the_intercept_leaves_the_gates_noise_alone():
    X, y = regression()
    runs = [make(fit_intercept=f).fit(X, y - y.mean(), epochs=1) for f in (True, False)]
    assert runs[0].history["open_gates"] == runs[1].history["open_gates"]
    assert torch.equal(runs[0].log_alpha, runs[1].log_alpha)


def test_gradients_of_forward():
    X, y = regression()
    model = make().fit(X, y, epochs=3)
    loss = (model.forward(X, deterministic=True) - torch.from_numpy(y).float()).square().mean()
    loss.backward()
    weight, log_alpha, bias = (
        p.detach().double().requires_grad_() for p in (model.weight, model.log_alpha, model.bias)
    )
    gates = l0fast.reference.hard_concrete(log_alpha)
    ((torch.from_numpy(X.toarray()) @ (weight * gates) + bias - torch.from_numpy(y)) ** 2).mean().backward()
    for ours, truth in ((model.weight, weight), (model.log_alpha, log_alpha), (model.bias, bias)):
        torch.testing.assert_close(ours.grad.double(), truth.grad, rtol=1e-4, atol=1e-5)


def test_resumed_chunks_equal_one_run():
    X, y = regression()
    whole, chunks = make().fit(X, y, epochs=30), make()
    for count in (0, 7, 1, 22):
        chunks.fit(X, y, epochs=count, resume=True)
    for a, b in zip(whole.state_dict().values(), chunks.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert chunks.epoch == 30
    assert all(np.array_equal(whole.history[k], chunks.history[k]) for k in whole.history)


def test_a_fit_starts_anew_unless_told_otherwise():
    X, y = regression()
    model = make().fit(X, y, **FIT)
    weight, error = model.weight.clone(), model.history["data_loss"][-1]
    kept = copy.deepcopy(model).fit(X, y, epochs=1, lr=0.0, warm_start=True)
    assert torch.equal(kept.weight, weight) and kept.epoch == 1 and kept.history["data_loss"][0] < 4 * error
    model.fit(X, y, epochs=0)
    assert not torch.equal(model.weight, weight) and model.weight.std() < 0.2
    assert model.bias.item() == pytest.approx(y.mean()) and model.epoch == 0 and len(model.history["loss"]) == 0


def test_both_names_of_the_price():
    X, y = regression()
    runs = [make().fit(X, y, epochs=20, **{name: 0.3}) for name in ("lambda_reg", "lambda_l0")]
    assert torch.equal(runs[0].log_alpha, runs[1].log_alpha)
    assert torch.equal(make().fit(X, y, epochs=20).log_alpha, make().fit(X, y, 0.01, epochs=20).log_alpha)


def test_callback():
    X, y = regression()
    seen = []
    model = make().fit(X, y, epochs=25, verbose_freq=10, callback=lambda epoch, metrics: seen.append((epoch, metrics)))
    assert [epoch for epoch, _ in seen] == [10, 20, 25]
    assert set(seen[0][1]) == {"loss", "data_loss", "expected_active", "open_gates", "active"}
    assert seen[-1][1]["active"] == len(model.get_selected_features())
    assert seen[1][1]["loss"] == model.history["loss"][19]


def test_ctrl_c_stops_soon_and_the_run_goes_on():
    X, y = regression()
    model = make()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt, match=r"stopped after \d+ epochs"):
        model.fit(X, y, epochs=100_000_000)
    done = model.epoch
    model.fit(X, y, epochs=5, resume=True)
    assert model.epoch == done + 5
    assert torch.equal(model.weight, make().fit(X, y, epochs=done + 5).weight)


def test_divergence_is_an_error_and_the_parameters_stay():
    X, y = regression()
    with pytest.raises(FloatingPointError, match=r"data loss became .* a smaller lr or rescaled columns of X may help"):
        model = without_noise(make())
        model.fit(X, y, lr=1e30, epochs=50)
    assert model.epoch == len(model.history["loss"])
