"""SparseCalibrationWeights as its users see it."""

import copy
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import torch
from model_problem import FIT, N_RECORDS, N_TARGETS, make
from scipy import sparse as sp


def test_fit_meets_targets_with_fewer_records(problem):
    M, y = problem
    model = make().fit(M, y, lambda_l0=2e-3, lr=0.1, epochs=600, loss_type="relative")
    active = model.get_active_weights()
    assert 0 < active["count"] < 0.8 * N_RECORDS
    error = np.abs(model.predict(M).numpy() - y) / y
    assert error.mean() < 0.03
    weights = model.get_weights(deterministic=True)
    assert torch.equal(active["indices"], weights.nonzero().squeeze(1)) and (active["values"] > 0).all()
    assert model.get_sparsity() == pytest.approx(1 - active["count"] / N_RECORDS)
    np.testing.assert_allclose(model.predict(M).numpy(), M @ weights.detach().numpy().astype(float), rtol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "relative", "relative_epsilon", "capped_mape"])
@pytest.mark.parametrize("use_gates", [True, False])
def test_every_loss_goes_down(problem, loss, use_gates):
    M, y = problem
    extra = {"target_tolerances": 0.001} if loss == "relative_epsilon" else {}
    model = make(use_gates=use_gates, init_keep_prob=0.9999)
    data = model.fit(M, y, lr=0.02, lambda_l0=0.0, epochs=200, loss_type=loss, **extra).history["data_loss"]
    assert data[-20:].mean() < 0.3 * data[0]


def test_seed_governs_every_draw(problem):
    M, y = problem
    first = make(log_weight_jitter_sd=0.05).fit(M, y, epochs=30, **FIT)
    torch.manual_seed(12345)  # the global generator has no say
    second = make(log_weight_jitter_sd=0.05).fit(M, y, epochs=30, **FIT)
    assert torch.equal(first.log_weight, second.log_weight) and torch.equal(first.log_alpha, second.log_alpha)
    assert torch.equal(first.get_weights(), second.get_weights())
    other = make(log_weight_jitter_sd=0.05, seed=6).fit(M, y, epochs=30, **FIT)
    assert not torch.equal(first.log_weight, other.log_weight)


def test_without_seed_the_global_generator_governs(problem):
    M, y = problem
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(make(seed=None).fit(M, y, epochs=10, **FIT).log_alpha.detach().clone())
    assert torch.equal(*results)


def test_draws_do_not_touch_the_global_generator(problem):
    M, y = problem
    before = torch.random.get_rng_state()
    make(log_weight_jitter_sd=0.1).fit(M, y, epochs=3, **FIT).get_weights()
    assert torch.equal(before, torch.random.get_rng_state())


def test_resumed_chunks_equal_one_run(problem):
    M, y = problem
    one = make(log_weight_jitter_sd=0.05).fit(M, y, epochs=100, **FIT)
    many = make(log_weight_jitter_sd=0.05)
    for _ in range(20):
        many.fit(M, y, epochs=5, resume=True, **FIT)
    assert many.epoch == one.epoch == 100
    assert torch.equal(one.log_weight, many.log_weight) and torch.equal(one.log_alpha, many.log_alpha)
    for name, values in one.history.items():
        np.testing.assert_array_equal(values, many.history[name])


def test_default_fit_restarts_the_optimizer(problem):
    M, y = problem
    model = make().fit(M, y, epochs=20, **FIT)
    seed = model._run.seed.clone()
    model.fit(M, y, epochs=10, **FIT)
    assert model.epoch == 10 and not torch.equal(model._run.seed, seed)


def test_forward_is_differentiable_and_fused(problem):
    M, y = problem
    model = make()
    loss = (model(M) - torch.tensor(y)).square().sum() + 0.1 * model.get_l0_penalty() + 0.1 * model.get_l2_penalty()
    loss.backward()
    assert model.log_weight.grad.abs().sum() > 0 and model.log_alpha.grad.abs().sum() > 0
    assert model(M).shape == (N_TARGETS,)
    assert not torch.equal(model(M), model(M)), "each forward draws new gates"
    assert torch.equal(model(M, deterministic=True), model.predict(M))
    assert not model.predict(M).requires_grad


def test_exactly_open_and_closed(problem):
    M, y = problem
    keep = np.full(N_RECORDS, 0.5)
    keep[:10], keep[10:20] = 0.0, 1.0
    model = make(init_keep_prob=keep)
    for _ in range(2):
        for gates in (model._sample_gates(), model.get_deterministic_gates()):
            assert (gates[:10] == 0).all() and (gates[10:20] == 1).all()
        model.fit(M, y, lambda_l0=0.1, epochs=100, lr=0.2, loss_type="relative")
    assert (make(init_keep_prob=0).get_deterministic_gates() == 0).all()
    assert (make(init_keep_prob=1.0).get_deterministic_gates() == 1).all()


def test_initial_weight_zero_has_the_documented_floor():
    model = make(init_weights=np.zeros(N_RECORDS))
    torch.testing.assert_close(model.log_weight.exp(), torch.full((N_RECORDS,), 1e-8))


def test_changed_matrix_is_noticed(problem):
    M, _ = problem
    model = make(use_gates=False)
    first = model.predict(M)
    M.data *= 2  # in place: same object, same shape, same number of nonzeros
    torch.testing.assert_close(model.predict(M), 2 * first)
    other = sp.random(N_TARGETS, N_RECORDS, density=0.2, format="csr", random_state=1)
    np.testing.assert_allclose(model.predict(other).numpy(), np.asarray(other.sum(axis=1)).ravel(), rtol=1e-5)


def test_callback_history_and_lines(problem, capsys):
    M, y = problem
    calls = []
    model = make().fit(
        M, y, epochs=25, verbose=True, verbose_freq=10, callback=lambda e, m: calls.append((e, m)), **FIT
    )
    assert [epoch for epoch, _ in calls] == [10, 20, 25]
    metrics = calls[-1][1]
    assert metrics["active"] == model.get_active_weights()["count"]
    error = np.abs(model.predict(M).numpy() - y) / np.abs(y + 1)
    assert metrics["mean_error"] == pytest.approx(error.mean(), rel=1e-6)
    assert metrics["max_error"] == pytest.approx(error.max(), rel=1e-6)
    assert metrics["loss"] == model.history["loss"][-1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Groups: none (uniform weights)"
    assert lines[1].startswith("Epoch   10: mean_error=") and "Weight dist: [<0.01:" in lines[2]
    assert len(lines) == 5


def test_reports_keep_round_numbers_after_resuming(problem):
    M, y = problem
    epochs = []
    model = make().fit(M, y, epochs=13, **FIT)
    model.fit(M, y, epochs=20, resume=True, verbose_freq=10, callback=lambda e, _: epochs.append(e), **FIT)
    assert epochs == [20, 30, 33]


def test_verbose_groups_and_bar(problem, capsys):
    M, y = problem
    make().fit(M, y, epochs=10, verbose=True, verbose_freq=10, target_groups=np.arange(N_TARGETS) % 3, **FIT)
    assert "mean_group_mare=" in capsys.readouterr().out
    make().fit(M, y, epochs=10, verbose="bar", verbose_freq=5, **FIT)
    captured = capsys.readouterr()
    assert captured.out == "" and "calibrating" in captured.err


def test_state_dict_copy_and_pickle(problem):
    M, y = problem
    model = make().fit(M, y, epochs=10, **FIT)
    assert set(model.state_dict()) == {"log_weight", "log_alpha"}
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.epoch == 10
        other.fit(M, y, epochs=5, resume=True, **FIT)
    model.fit(M, y, epochs=5, resume=True, **FIT)
    assert torch.equal(other.log_weight, model.log_weight)


def test_float64_model(problem):
    M, y = problem
    model = make().double().fit(M, y, epochs=50, **FIT)
    assert model.log_weight.dtype == torch.float64
    np.testing.assert_allclose(
        model.predict(M).numpy(), M @ model.get_weights(deterministic=True).detach().numpy(), rtol=1e-12
    )


def test_interrupt_leaves_a_run_that_can_be_resumed(problem, tmp_path):
    M, y = problem
    path = tmp_path / "run.safetensors"
    model = make()
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        model.fit(M, y, epochs=10**7, checkpoint=path, checkpoint_freq=10**6, **FIT)
    assert time.monotonic() - began < 5
    epochs = model.epoch
    assert 0 < epochs < 10**7 and len(model.history["loss"]) == epochs
    assert make().load_checkpoint(path).epoch == epochs
    model.fit(M, y, epochs=7, resume=True, **FIT)
    uninterrupted = make().fit(M, y, epochs=epochs + 7, **FIT)
    assert torch.equal(model.log_weight, uninterrupted.log_weight)


def test_divergence_is_loud_and_keeps_the_last_state(problem):
    M, y = problem
    model = make(init_weights=1.0)
    with pytest.raises(FloatingPointError, match=r"fit: the data loss became (inf|nan) at epoch \d+"):
        model.fit(M, y * 1e300, epochs=100, lr=50.0)
    assert torch.isfinite(model.log_weight).all()
    assert len(model.history["loss"]) == model.epoch


def test_infinite_log_alpha_is_always_open_or_closed(problem):
    """l0-python writes them for a keep probability of exactly 0 or 1; its checkpoints must go on here."""
    M, y = problem
    model = make()
    with torch.no_grad():
        model.log_alpha[:5], model.log_alpha[5:10] = float("-inf"), float("inf")
    model.fit(M, y, epochs=50, **FIT)
    assert torch.isneginf(model.log_alpha[:5]).all() and torch.isposinf(model.log_alpha[5:10]).all()
    assert torch.isfinite(model.log_weight).all() and np.isfinite(model.history["loss"]).all()
    gates = model.get_deterministic_gates()
    assert (gates[:5] == 0).all() and (gates[5:10] == 1).all()


def test_a_run_goes_where_its_parameters_go(problem):
    """.double() between two fits stands for .to("cuda"): the moments follow, and the run can go on."""
    M, y = problem
    model = make()
    model.fit(M, y, epochs=5, loss_type="relative")
    moments = {name: x.clone() for name, x in model._run.moments.items()}
    model.double()
    assert all(torch.equal(model._run.moments[name], x.double()) for name, x in moments.items())
    assert model._run.seed.dtype == torch.int64 and model.device == torch.device("cpu")
    model.fit(M, y, epochs=5, loss_type="relative", resume=True)
    assert model.epoch == 10 and np.isfinite(model.history["loss"]).all()
