"""SparseCalibrationWeights and SparseL0Linear with device="cuda", as their users see them."""

import copy

import numpy as np
import pytest
import torch
from linear_problem import FIT as LINEAR_FIT
from linear_problem import make as make_linear
from linear_problem import r_squared, regression
from model_problem import FIT, N_RECORDS, make

from l0fast.calibration import pack
from l0fast.calibration.gated_model import GatedModel


@pytest.fixture
def fixed_noise(monkeypatch):
    """The same noise seed on every device; torch's generators of CPU and GPU draw different ones."""
    monkeypatch.setattr(GatedModel, "_draw_seed", lambda model: torch.tensor([77], device=model.device))


def test_fit_meets_the_targets(device, problem):
    M, y = problem
    model = make(device=device).fit(M, y, lambda_l0=2e-3, lr=0.1, epochs=600, loss_type="relative")
    assert model.log_weight.device == model.log_alpha.device == device
    active = model.get_active_weights()
    assert 0 < active["count"] < 0.8 * N_RECORDS and active["indices"].device == device
    error = np.abs(model.predict(M).cpu().numpy() - y) / y
    assert error.mean() < 0.03
    weights = model.get_weights(deterministic=True).detach().cpu().numpy().astype(float)
    np.testing.assert_allclose(model.predict(M).cpu().numpy(), M @ weights, rtol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "relative", "relative_epsilon", "capped_mape"])
@pytest.mark.parametrize("use_gates", [True, False])
def test_the_same_run_as_on_the_cpu(device, problem, fixed_noise, loss, use_gates):
    M, y = problem
    extra = {"target_tolerances": 0.001} if loss == "relative_epsilon" else {}
    settings = {"lambda_l0": 1e-4, "lambda_l2": 1e-6, "lr": 0.02, "epochs": 60, "loss_type": loss, **extra}
    options = {"use_gates": use_gates, "log_alpha_jitter_sd": 0.0}
    here, there = (make(device=where, **options).fit(M, y, **settings) for where in (device, "cpu"))
    for name in here.history:
        np.testing.assert_allclose(here.history[name], there.history[name], rtol=2e-3, err_msg=name)
    torch.testing.assert_close(here.log_weight.cpu(), there.log_weight, rtol=1e-3, atol=1e-3)


def test_same_bits_twice_and_in_chunks(device, problem):
    M, y = problem
    one, two = (make(device=device, log_weight_jitter_sd=0.05).fit(M, y, epochs=100, **FIT) for _ in range(2))
    many = make(device=device, log_weight_jitter_sd=0.05)
    for _ in range(10):
        many.fit(M, y, epochs=10, resume=True, **FIT)
    for other in (two, many):
        assert torch.equal(one.log_weight, other.log_weight) and torch.equal(one.log_alpha, other.log_alpha)
        for name, values in one.history.items():
            np.testing.assert_array_equal(values, other.history[name])


def test_a_checkpoint_goes_on_elsewhere(device, problem, tmp_path):
    """Saved on the device, resumed there with the same bits, and on the CPU with the same numbers."""
    M, y = problem
    whole = make(device=device).fit(M, y, epochs=60, **FIT)
    first = make(device=device).fit(M, y, epochs=40, **FIT)
    first.save_checkpoint(tmp_path / "run.safetensors")
    for where in (device, "cpu"):
        model = make(device=where).load_checkpoint(tmp_path / "run.safetensors")
        assert model.epoch == 40 and model.log_weight.device == torch.device(where)
        model.fit(M, y, epochs=20, resume=True, **FIT)
        if where is device:
            assert torch.equal(model.log_weight, whole.log_weight)
        torch.testing.assert_close(model.log_weight.cpu(), whole.log_weight.cpu(), rtol=1e-3, atol=1e-3)


def test_packed_matrices_on_either_device(device, problem):
    M, y = problem
    here, there = pack(M, device=device), pack(M)
    assert here.device == device and here.sha256() == there.sha256()
    results = [make(device=device).fit(m, y, epochs=20, **FIT).log_weight for m in (here, there, M)]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert torch.equal(here.row_counts().cpu(), there.row_counts())
    assert (here.to_scipy() != M).nnz <= (M != M.astype(np.float32)).nnz


def test_copies_and_state_dicts(device, problem):
    M, y = problem
    model = make(device=device).fit(M, y, epochs=20, **FIT)
    there = make()
    there.load_state_dict(model.state_dict())
    torch.testing.assert_close(there.predict(M), model.predict(M).cpu(), rtol=1e-5, atol=1e-4)
    assert torch.equal(copy.deepcopy(model).predict(M), model.predict(M))


def test_forward_is_differentiable(device, problem):
    M, _ = problem
    model = make(device=device)
    (model.forward(M).sum() + model.get_l0_penalty() + model.get_l2_penalty()).backward()
    for parameter in (model.log_weight, model.log_alpha):
        assert parameter.grad.device == device and torch.isfinite(parameter.grad).all()


def test_the_loss_that_leaves_the_finite_numbers(device, problem):
    M, y = problem
    model = make(device=device, use_gates=False)
    with pytest.raises(FloatingPointError, match="the data loss became"):
        model.fit(M, y, epochs=50, lr=300.0)
    assert 0 < model.epoch < 50


def test_sparse_regression(device):
    X, y = regression()
    model = make_linear(device=device)
    model.fit(X, y, **LINEAR_FIT)
    assert model.weight.device == device
    model.to("cpu")
    assert r_squared(make_linear_on_cpu(model), X, y) > 0.9


def make_linear_on_cpu(model):
    here = make_linear()
    here.load_state_dict(model.state_dict())
    return here
