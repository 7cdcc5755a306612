"""Schedules of a run: their formulas, the engine's epochs under them, resuming, and what they are for."""

import json
import math

import numpy as np
import pytest
import torch
from cli_problem import CALIBRATE, fails, problem_folder, run  # noqa: F401 - a fixture
from model_problem import N_RECORDS, make, survey
from scipy import sparse as sp

from l0fast import reference
from l0fast.calibration import SparseCalibrationWeights
from l0fast.calibration.chunks import SCHEDULE_EVERY
from l0fast.calibration.schedule import Schedule
from l0fast.calibration.stopping import CHECK_EVERY
from l0fast.cli.demo import DATA

FIT = {"lambda_l0": 1e-4, "lr": 0.1, "loss_type": "relative"}


@pytest.mark.parametrize(
    ("epochs", "epoch"), [(400, 0), (400, 57), (400, 200), (400, 333), (400, 399), (30, 29), (1, 0)]
)
def test_factors_follow_their_formulas(epochs, epoch):
    t = epoch // SCHEDULE_EVERY * SCHEDULE_EVERY / epochs
    lr = 1.0 if t < 0.5 else (1 + math.cos(math.pi * (2 * t - 1))) / 2
    temperature, price = (2 - 2 * t, 4 - 6 * t) if t < 0.5 else (1.0, 1.0)
    assert Schedule(epochs).factors(epoch) == pytest.approx((lr, temperature, price))


def test_epochs_are_those_of_the_engine_with_these_factors():
    """Against plain fits that stand still in between, each with the step, temperature and price of its ten epochs."""
    M, y = survey()
    scheduled = make().fit(M, y, epochs=45, schedule="anneal", **FIT)
    plan, model, prices = Schedule(45), make(), []
    for first in range(0, 45, SCHEDULE_EVERY):
        lr, temperature, price = plan.factors(first)
        model.beta = 0.35 * temperature
        fit = {**FIT, "lr": FIT["lr"] * lr, "lambda_l0": FIT["lambda_l0"] * price}
        model.fit(M, y, epochs=min(SCHEDULE_EVERY, 45 - first), resume=first > 0, **fit)
        prices += [fit["lambda_l0"]] * len(model.history["loss"][first:])
    assert torch.equal(scheduled.log_weight, model.log_weight) and torch.equal(scheduled.log_alpha, model.log_alpha)
    np.testing.assert_allclose(scheduled.history["lambda_l0"], prices)
    assert scheduled.beta == 0.35, "the model's own temperature stays"


@pytest.mark.parametrize("first", [7, 20, 33])
def test_an_interrupted_run_ends_as_one_run(first, tmp_path):
    M, y = survey()
    path = tmp_path / "run"

    def interrupt(epoch, metrics):
        raise KeyboardInterrupt

    model, whole = make(), make().fit(M, y, epochs=60, schedule="anneal", **FIT)
    with pytest.raises(KeyboardInterrupt):
        fit = {**FIT, "schedule": "anneal", "checkpoint": path, "checkpoint_freq": first}
        model.fit(M, y, epochs=60, callback=interrupt, verbose_freq=first + 5, **fit)
    resumed = make().load_checkpoint(path)
    assert resumed.epoch == first
    resumed.fit(M, y, epochs=60 - first, resume=True, schedule="anneal", **FIT)
    assert torch.equal(resumed.log_weight, whole.log_weight) and torch.equal(resumed.log_alpha, whole.log_alpha)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    with pytest.raises(ValueError, match=r"schedule is not that of the saved run \(anneal there, None here\)"):
        make().load_checkpoint(path).fit(M, y, epochs=3, resume=True, **FIT)


def test_looks_of_others_do_not_change_a_scheduled_run():
    M, y = survey()
    plain = make().fit(M, y, epochs=60, schedule="anneal", **FIT)
    looked = make().fit(M, y, epochs=60, schedule="anneal", callback=lambda *_: None, verbose_freq=7, **FIT)
    watched = make().fit(M, y, epochs=60, schedule="anneal", tol=0, patience=1000, **FIT)
    assert torch.equal(plain.log_alpha, looked.log_alpha) and torch.equal(plain.log_alpha, watched.log_alpha)


def test_a_constant_schedule_is_none():
    M, y = survey()
    plain, named = (make().fit(M, y, epochs=30, **FIT, **more) for more in ({}, {"schedule": "constant"}))
    assert torch.equal(plain.log_weight, named.log_weight)
    assert plain._run.signature == named._run.signature


def test_early_stopping_watches_the_price_that_was_asked_for():
    """And not that of the first epochs, whose fall would look like one of the objective."""
    M, y = survey()
    model = make().fit(M, y, epochs=CHECK_EVERY, schedule="anneal", tol=0, patience=1000, lambda_l2=0.0, **FIT)
    weights = (model.log_weight.exp() * model.get_deterministic_gates()).detach().double().numpy()
    data = (((M @ weights - y) / (y + 1)) ** 2).sum()
    penalty = float(reference.l0_penalty(model.log_alpha.detach().double(), temperature=0.35))
    assert model._run.least_objective == pytest.approx(data + FIT["lambda_l0"] * penalty, rel=1e-4)


def test_overridden_methods_know_one_temperature():
    M, y = survey()

    class Own(type(make())):
        def get_l2_penalty(self):
            return super().get_l2_penalty()

    with pytest.raises(ValueError, match="schedule: expected no overridden methods with 'anneal', got those of Own"):
        Own(N_RECORDS, beta=0.35, seed=5).fit(M, y, epochs=5, schedule="anneal", **FIT)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(schedule="linear"), ValueError, "schedule: expected one of constant, anneal, got 'linear'"),
        (dict(schedule=None), TypeError, "schedule: expected a string, got NoneType"),
        (dict(schedule="anneal", target_records=5), ValueError, "schedule: expected 'constant' with target_records"),
    ],
)
def test_bad_schedules_are_refused_before_anything_changes(options, error, message):
    M, y = survey()
    model = make(log_weight_jitter_sd=0.1)
    before = model.log_weight.detach().clone()
    with pytest.raises(error, match=message):
        model.fit(M, y, epochs=5, lr=0.1, **options)
    assert torch.equal(model.log_weight, before)


def test_no_epochs_are_no_division_by_zero():
    M, y = survey()
    assert make().fit(M, y, epochs=0, schedule="anneal", **FIT).epoch == 0


def test_annealing_pays_on_the_cps_problem():
    """At the same step and epochs: less error with fewer records."""
    with np.load(DATA) as data:
        M = sp.csr_matrix((data["data"], data["indices"], data["indptr"]), shape=tuple(data["shape"]))
        y, w0 = data["y"], data["w0"]

    def judged(schedule):
        model = SparseCalibrationWeights(len(w0), beta=0.35, init_keep_prob=0.999, init_weights=w0, seed=0)
        model.fit(M, y, lambda_l0=1e-3, lr=0.3, epochs=200, loss_type="relative", schedule=schedule)
        weights = model.get_weights(deterministic=True).detach().double().numpy()
        data = (((M @ weights - y) / (y + 1)) ** 2).sum()
        return data, data + 1e-3 * float(model.get_l0_penalty().detach()), np.count_nonzero(weights)

    constant, annealed = judged("constant"), judged("anneal")
    assert annealed[0] < constant[0] / 2
    assert annealed[1] < 0.95 * constant[1] and annealed[2] < 0.95 * constant[2]


def test_command_line(problem, capsys):
    assert run(*CALIBRATE, "-o", "w.npy", "--schedule", "anneal", "--checkpoint", "run.st") == 0
    assert json.loads((problem / "w.json").read_text())["options"]["schedule"] == "anneal"
    assert run(*CALIBRATE, "-o", "constant.npy") == 0
    assert not np.array_equal(np.load("w.npy"), np.load("constant.npy"))
    capsys.readouterr()
    fails(
        capsys, *CALIBRATE[:-1], 50, "-o", "w.npy", "--checkpoint", "run.st", "--resume", says="schedule is not that of"
    )
    fails(capsys, *CALIBRATE, "-o", "w.npy", "--schedule", "linear", says="--schedule")
