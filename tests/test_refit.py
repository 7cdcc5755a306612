"""Refitted weights: a lower loss, the same records, and the matrix of these records alone."""

import numpy as np
import pytest
import torch
from model_problem import N_RECORDS, make, survey

from l0fast.calibration import SparseCalibrationWeights, refit
from l0fast.calibration.matrix import pack

FIT = {"target_records": 60, "exact": True, "lr": 0.1, "loss_type": "relative", "epochs": 400}
LOSSES = [
    ("mse", {}),
    ("relative", {}),
    ("relative_epsilon", {"target_tolerances": 0.01}),
    ("capped_mape", {"loss_cap": 0.5}),
]


def loss_of(model, M, y) -> float:
    weights = model.get_weights(deterministic=True).detach().double().numpy()
    return float(np.square((M @ weights - y) / (y + 1)).sum())


@pytest.fixture
def fitted():
    M, y = survey()
    return M, y, make(log_weight_jitter_sd=0.05).fit(M, y, **FIT)


def test_lowers_the_loss_and_touches_only_the_support(fitted):
    M, y, model = fitted
    before = model.get_weights(deterministic=True).detach().clone()
    log_weight = model.log_weight.detach().clone()
    loss = loss_of(model, M, y)
    assert model.refit(M, y, epochs=300, loss_type="relative") is model
    after = model.get_weights(deterministic=True).detach()
    assert loss_of(model, M, y) < 0.05 * loss
    assert torch.equal(after > 0, before > 0) and (after[before == 0] == 0).all()
    assert torch.equal(model.log_weight[before == 0], log_weight[before == 0])
    assert torch.equal(model.get_weights(), after), "no gate is left to chance"
    np.testing.assert_allclose(model.predict(M).numpy(), M @ after.double().numpy(), rtol=1e-5)


def test_equals_dense_calibration_of_the_support(fitted):
    """One stage is Adam on the compacted matrix: the class without gates, on the columns cut by scipy."""
    M, y, model = fitted
    weights = model.get_weights(deterministic=True).detach()
    support = weights.nonzero().squeeze(1)
    dense = SparseCalibrationWeights(60, use_gates=False, log_alpha_jitter_sd=0)
    with torch.no_grad():
        dense.log_weight.copy_(torch.log(weights[support]))
    first = 30 // refit.STAGES
    cut = M.tocsc()[:, support.numpy()]
    for stage in range(refit.STAGES):
        lr = 0.05 * (1 + np.cos(np.pi * stage / refit.STAGES)) / 2
        dense.fit(cut, y, lambda_l0=0.0, lr=lr, epochs=first, loss_type="relative", resume=stage > 0)
    model.refit(M, y, epochs=30, lr=0.05, loss_type="relative")
    np.testing.assert_allclose(model.get_weights(True)[support].detach(), dense.get_weights().detach(), rtol=1e-5)


@pytest.mark.parametrize(("loss", "extra"), LOSSES)
def test_fit_refits_with_its_own_loss(loss, extra):
    M, y = survey()
    options = {**FIT, "loss_type": loss, "epochs": 300, **extra}
    gated, both = make().fit(M, y, **options), make().fit(M, y, refit=True, **options)
    del options["target_records"], options["exact"]
    gated.refit(M, y, **options)
    assert torch.equal(gated.get_weights(True), both.get_weights(True))


def test_never_raises_the_loss(fitted):
    M, y, model = fitted
    before, loss = model.get_weights(deterministic=True).detach().clone(), loss_of(model, M, y)
    model.refit(M, y, epochs=10, lr=3.0, loss_type="relative")  # far too large a step
    assert loss_of(model, M, y) <= loss * (1 + 1e-6)
    model.refit(M, y, epochs=0)
    assert torch.equal(model.get_weights(deterministic=True) > 0, before > 0)


def test_cost_falls_with_the_support(fitted, monkeypatch):
    M, y, model = fitted
    seen = []
    plain = refit.group_epochs
    monkeypatch.setattr(
        refit, "group_epochs", lambda g, m, r, matrix, *rest: seen.append(matrix) or plain(g, m, r, matrix, *rest)
    )
    model.refit(M, y, epochs=20)
    support = model.get_active_weights()["indices"].numpy()
    assert {(x.n_records, x.nnz) for x in seen} == {(60, M.tocsc()[:, support].nnz)}


def test_leaves_the_generators_alone(fitted):
    M, y, model = fitted
    state, own = torch.get_rng_state(), model._generator.get_state()
    model.refit(M, y, epochs=5)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(model._generator.get_state(), own)


def test_ends_the_run_and_can_be_saved(fitted, tmp_path):
    M, y, model = fitted
    path = tmp_path / "run.safetensors"
    model.refit(M, y, epochs=50, loss_type="relative").save_checkpoint(path)
    loaded = make().load_checkpoint(path)
    assert torch.equal(loaded.get_weights(True), model.get_weights(True))
    for one in (model, loaded):
        with pytest.raises(ValueError, match=r"resume: expected a run to continue, got one that ended with a refit"):
            one.fit(M, y, resume=True, **FIT)
    model.fit(M, y, epochs=3)
    assert model.epoch == 3, "a new run may start"


def test_interrupted_refit_keeps_the_best_so_far(fitted, monkeypatch):
    M, y, model = fitted
    loss, stages = loss_of(model, M, y), []
    plain = refit.run_chunks

    def stop(*arguments, **options):
        if len(stages) == 5:
            raise KeyboardInterrupt("as run_chunks does")
        stages.append(plain(*arguments, **options))

    monkeypatch.setattr(refit, "run_chunks", stop)
    with pytest.raises(KeyboardInterrupt, match="refit: stopped; the model has the best weights so far"):
        model.refit(M, y, epochs=300, loss_type="relative")
    assert loss_of(model, M, y) < loss


def test_a_loss_that_overflows_changes_nothing(fitted):
    M, y, model = fitted
    before = model.get_weights(deterministic=True).detach().clone()
    with pytest.raises(FloatingPointError, match="data loss became"):
        model.refit(M, y, epochs=100, lr=1000.0)
    assert torch.equal(model.get_weights(deterministic=True), before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(epochs=-1), ValueError, r"epochs: expected at least 0"),
        (dict(lr=-1), ValueError, r"lr: expected a finite non-negative number"),
        (dict(loss_type="huber"), ValueError, r"loss_type: expected one of"),
        (dict(target_colour=1), TypeError, r"target_colour"),
        (dict(y=np.ones(3)), ValueError, r"y: expected shape \(30,\)"),
    ],
)
def test_bad_input(fitted, options, error, message):
    M, y, model = fitted
    before = model.get_weights(deterministic=True).detach().clone()
    with pytest.raises(error, match=message):
        model.refit(**{"M": M, "y": y, **options})
    assert torch.equal(model.get_weights(deterministic=True), before)


def test_what_cannot_be_refitted():
    M, y = survey()
    with pytest.raises(ValueError, match=r"refit: expected a model with gates, got use_gates=False"):
        make(use_gates=False).refit(M, y)
    with pytest.raises(TypeError, match=r"refit: expected True or False, got str"):
        make().fit(M, y, refit="yes")
    with pytest.raises(ValueError, match=r"refit: expected records in use, got none"):
        make(init_keep_prob=0.0).refit(M, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_targets", [30, 70_000])
def test_columns_are_those_of_scipy(dtype, n_targets, monkeypatch):
    from scipy import sparse as sp

    from l0fast.calibration import packed_matrix

    monkeypatch.setattr(packed_matrix, "_CHUNK", 7)
    M = sp.random(n_targets, 50, density=300 / n_targets / 50, format="csc", random_state=3)
    for chosen in ([0], [49, 3, 3, 17], list(range(50))):
        cut = pack(M, dtype).columns(torch.tensor(chosen))
        assert cut.sha256() == pack(M[:, chosen], dtype).sha256()


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.tensor([400]), r"indices: expected records from 0 to 399, got 400 to 400"),
        (torch.tensor([-1, 2]), r"indices: expected records from 0 to 399, got -1 to 2"),
        (torch.tensor([1.0]), r"indices: expected a vector of at least one int64, got torch.float32"),
        (torch.empty(0, dtype=torch.int64), r"indices: expected a vector of at least one int64"),
    ],
)
def test_bad_columns(indices, message):
    with pytest.raises(ValueError, match=message):
        pack(survey()[0]).columns(indices)
    assert survey()[0].shape[1] == N_RECORDS
