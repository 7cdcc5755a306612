"""Early stopping: where it ends a run, that chunks end where one run does, and what is left behind."""

import json

import numpy as np
import pytest
import torch
from cli_problem import CALIBRATE, fails, problem_folder, run  # noqa: F401 - a fixture
from model_problem import N_RECORDS, make, survey

from l0fast import reference
from l0fast.calibration.stopping import CHECK_EVERY, DEFAULT_PATIENCE, EarlyStopping

FIT = {"lambda_l0": 1e-4, "lr": 0.1, "loss_type": "relative"}
STOP = {"tol": 1e-2, "patience": 40}
"""On the survey of model_problem this ends a run after some 100 epochs."""


def objective_of(model, M, y, lambda_l0: float, lambda_l2: float) -> float:
    """From the formula, in float64."""
    log_weight, log_alpha = model.log_weight.detach().double(), model.log_alpha.detach().double()
    weights = log_weight.exp() * reference.hard_concrete(log_alpha, temperature=0.35)
    data = (((M @ weights.numpy() - y) / (y + 1)) ** 2).sum()
    penalty, squares = reference.l0_penalty(log_alpha, temperature=0.35), (2 * log_weight).exp().sum()
    return float(data + lambda_l0 * float(penalty) + lambda_l2 * float(squares))


def objectives(epochs: int, start=make) -> list[float]:
    """The objective after 0, CHECK_EVERY, ... epochs."""
    M, y = survey()
    model, values = start(), []
    for done in range(0, epochs + 1, CHECK_EVERY):
        model.fit(M, y, epochs=CHECK_EVERY if done else 0, resume=done > 0, lambda_l2=1e-6, **FIT)
        values.append(objective_of(model, M, y, FIT["lambda_l0"], 1e-6))
    return values


def expected_end(values: list[float], tol: float, patience: int) -> int:
    """The epoch of the first look that is ``patience`` epochs after the last fall that counts."""
    least, since = values[1], 1
    for k, value in enumerate(values[1:], 1):
        if value < least * (1 - tol):
            least, since = value, k
        if (k - since) * CHECK_EVERY >= patience:
            return k * CHECK_EVERY
    raise AssertionError("the values never end a run")


@pytest.mark.parametrize("rule", [STOP, {"tol": 0.5, "patience": 40}, {"tol": 1e-2, "patience": 55}])
def test_ends_where_the_objective_has_ceased_to_fall(rule):
    M, y = survey()
    model = make().fit(M, y, epochs=400, lambda_l2=1e-6, **FIT, **rule)
    assert model.stopped and 40 <= model.epoch < 400
    assert model.epoch == expected_end(objectives(400), **rule)
    assert all(len(values) == model.epoch for values in model.history.values())
    whole = make().fit(M, y, epochs=model.epoch, lambda_l2=1e-6, **FIT)
    assert torch.equal(model.log_weight, whole.log_weight), "looking changes nothing"
    assert not whole.stopped


def test_what_is_watched_is_the_whole_objective():
    M, y = survey()
    prices = {"lambda_l0": 0.01, "lambda_l2": 0.003}
    model = make().fit(M, y, epochs=CHECK_EVERY, lr=0.1, loss_type="relative", **prices, tol=0, patience=1000)
    assert model._run.least_objective == pytest.approx(objective_of(model, M, y, **prices), rel=1e-5)


def test_patience_has_a_default():
    M, y = survey()
    given = make().fit(M, y, epochs=400, **FIT, tol=1e-2, patience=DEFAULT_PATIENCE)
    left_out = make().fit(M, y, epochs=400, **FIT, tol=1e-2)
    assert given.stopped and given.epoch == left_out.epoch


@pytest.mark.parametrize("parts", [(7, 393), (20, 25, 355), (200, 200, 200)])
def test_a_run_in_parts_ends_where_one_run_does(parts, tmp_path):
    M, y = survey()
    whole = make().fit(M, y, epochs=400, **FIT, **STOP)
    model = make()
    for k, epochs in enumerate(parts):
        model.fit(M, y, epochs=epochs, resume=k > 0, checkpoint=tmp_path / "run", **FIT, **STOP)
        model = make().load_checkpoint(tmp_path / "run")
    assert model.stopped and model.epoch == whole.epoch
    assert torch.equal(model.log_weight, whole.log_weight) and torch.equal(model.log_alpha, whole.log_alpha)


def test_looks_of_others_do_not_move_the_end(tmp_path):
    M, y = survey()
    whole = make().fit(M, y, epochs=400, **FIT, **STOP)
    epochs, path = [], tmp_path / "run"
    look = {"callback": lambda epoch, metrics: epochs.append(epoch), "verbose_freq": 7}
    model = make().fit(M, y, epochs=400, checkpoint=path, checkpoint_freq=13, **look, **FIT, **STOP)
    assert model.epoch == whole.epoch and torch.equal(model.log_weight, whole.log_weight)
    assert epochs[-1] == model.epoch, "the callback sees the last epoch"
    assert make().load_checkpoint(path).epoch == model.epoch, "and so does the checkpoint"


def test_a_stopped_run_goes_on_when_asked_to():
    M, y = survey()
    model = make().fit(M, y, epochs=400, **FIT, **STOP)
    end = model.epoch
    model.fit(M, y, epochs=100, resume=True, **FIT, **STOP)
    assert model.stopped and model.epoch == end, "the same rule: it stays ended"
    model.fit(M, y, epochs=100, resume=True, **FIT, tol=STOP["tol"], patience=1000)
    assert not model.stopped and model.epoch == end + 100
    model.fit(M, y, epochs=5, resume=True, **FIT)
    assert model.epoch == end + 105
    model.fit(M, y, epochs=10, resume=True, **FIT, **STOP)
    assert model.epoch == end + 115 and not model.stopped, "patience starts anew after epochs that nobody watched"
    whole = make().fit(M, y, epochs=end + 115, **FIT)
    assert torch.equal(model.log_weight, whole.log_weight)


def test_another_price_is_another_objective():
    M, y = survey()
    model = make().fit(M, y, epochs=400, **FIT, **STOP)
    end = model.epoch
    model.fit(M, y, epochs=20, resume=True, **{**FIT, "lambda_l0": 1e-2}, **STOP)
    assert model.epoch > end, "its values were never compared with those of the old price"


def test_works_through_overridden_methods_and_without_gates():
    M, y = survey()

    class Own(type(make())):
        def get_l2_penalty(self):
            return super().get_l2_penalty()

    def own():
        return Own(N_RECORDS, beta=0.35, init_keep_prob=0.9, seed=5)

    rule = {"tol": 0.5, "patience": 40}
    model = own().fit(M, y, epochs=120, lambda_l2=1e-6, **FIT, **rule)
    assert model.stopped and model.epoch == expected_end(objectives(120, own), **rule)
    dense = make(use_gates=False).fit(M, y, epochs=2000, **FIT, tol=1e-3, patience=30)
    assert dense.stopped and dense.epoch < 2000


def test_small_falls_add_up_and_bad_values_are_no_fall():
    rule, state = EarlyStopping(tol=0.1, patience=40), make().fit(*survey(), epochs=0, **FIT)._run
    falls = {0: 1.0, 20: 10.0, 40: 9.5, 60: 8.9, 80: float("nan"), 100: 8.9}
    ends = {}
    state.epoch = 20
    assert not rule.ends(state, lambda: float("nan")) and state.least_objective is None
    for epoch, value in falls.items():
        state.epoch = epoch
        ends[epoch] = rule.ends(state, lambda value=value: value)
    assert ends == {0: False, 20: False, 40: False, 60: False, 80: False, 100: True}
    assert state.least_objective == 8.9 and state.least_epoch == 60
    state.epoch = 105
    assert not rule.ends(state, lambda: pytest.fail("looked between two looks"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(tol=-0.1), ValueError, r"tol: expected a share in \[0, 1\), got -0.1"),
        (dict(tol=1), ValueError, r"tol: expected a share in \[0, 1\), got 1"),
        (dict(tol=np.nan), ValueError, r"tol: expected a share in \[0, 1\), got nan"),
        (dict(tol="a"), TypeError, "tol: expected a number, got str"),
        (dict(tol=True), TypeError, "tol: expected a number, got bool"),
        (dict(tol=0.1, patience=0), ValueError, "patience: expected at least 1, got 0"),
        (dict(tol=0.1, patience=2.5), TypeError, "patience: expected an int, got float"),
        (dict(patience=20), ValueError, "patience: expected tol with it, got None"),
        (dict(tol=0.1, target_records=5), ValueError, "tol: expected no target_records with it"),
    ],
)
def test_bad_values_are_refused_before_anything_changes(options, error, message):
    M, y = survey()
    model = make(log_weight_jitter_sd=0.1)
    before = model.log_weight.detach().clone()
    fit = {name: value for name, value in FIT.items() if name != "lambda_l0" or "target_records" not in options}
    with pytest.raises(error, match=message):
        model.fit(M, y, epochs=5, **fit, **options)
    assert torch.equal(model.log_weight, before) and not model.stopped


def test_command_line(problem, capsys):
    long = (*CALIBRATE[:-1], 3000, "--lambda-l0", 1e-4, "-o", "w.npy", "--checkpoint", "run.st", "--tol", 0.01)
    assert run(*long, "--patience", 30) == 0
    told = capsys.readouterr().out
    record = json.loads((problem / "w.json").read_text())
    end = record["epochs"]["total"]
    assert record["epochs"]["stopped"] and end < 3000 and record["options"]["patience"] == 30
    assert f"stopped at epoch {end:,} of 3,000" in told
    assert run(*long, "--patience", 30, "--resume") == 0
    assert json.loads((problem / "w.json").read_text())["epochs"] == {"total": end, "this_process": 0, "stopped": True}
    fails(capsys, *CALIBRATE, "-o", "w.npy", "--tol", 2, says="tol: expected a share in [0, 1), got 2.0")
    fails(capsys, *CALIBRATE, "-o", "w.npy", "--patience", 5, says="patience: expected tol with it")
