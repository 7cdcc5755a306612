"""Temperatures of a model's gates, and their schedules."""

import inspect
import io

import pytest
import torch
from torch import nn

import l0fast
from l0fast import HardConcrete, L0Linear, SparseMLP, TemperatureScheduler, update_temperatures

SCHEDULES = ["linear", "exponential", "cosine"]


def temperatures(model):
    return {gates.temperature for gates in model.modules() if isinstance(gates, HardConcrete)}


def test_update_reaches_every_gate():
    model = nn.ModuleList([SparseMLP(4, 3, 2), HardConcrete(3), l0fast.HybridGate(5), l0fast.L0Conv2d(1, 2, 3)])
    update_temperatures(model, 0.17)
    assert temperatures(model) == {0.17}
    calibration = l0fast.SparseCalibrationWeights(3, beta=0.4)
    update_temperatures(calibration, 0.17)
    assert calibration.beta == 0.4


def test_update_reaches_l0_pythons_layers():
    peer = pytest.importorskip("l0", reason="l0-python is not installed")
    model = nn.Sequential(peer.L0Linear(2, 2), peer.L0DepthwiseConv2d(2, 3))
    update_temperatures(model, 0.3)
    assert model[0].weight_gates.temperature == model[1].channel_gates.temperature == 0.3


@pytest.mark.parametrize(
    ("temperature", "error"), [(0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_update_refuses_before_it_changes_anything(temperature, error):
    model = SparseMLP(4, 3, 2)
    with pytest.raises(error, match=r"temperature: expected a"):
        update_temperatures(model, temperature)
    assert temperatures(model) == {0.5}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("settings", [{}, {"initial_temp": 0.3, "final_temp": 1.5, "anneal_epochs": 7}], ids=str)
def test_sequence_of_l0_python(schedule, settings):
    peer = pytest.importorskip("l0.penalties", reason="l0-python is not installed: nothing to compare with")
    theirs = peer.TemperatureScheduler(**settings, schedule=schedule)
    ours = TemperatureScheduler(**settings, schedule=schedule)
    for epoch in (0, 1, 2.5, 6, 7, 50, 99, 100, 10_000):
        got = ours.get_temperature(epoch)
        assert got == pytest.approx(theirs.get_temperature(epoch), rel=1e-12) and type(got) is float
    expected = list(inspect.signature(peer.TemperatureScheduler.__init__).parameters.values())
    parameters = list(inspect.signature(TemperatureScheduler.__init__).parameters.values())
    for one, other in zip(parameters, expected, strict=False):
        assert (one.name, one.default, one.kind) == (other.name, other.default, other.kind)
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[len(expected) :])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_give_the_temperature_of_each_epoch(schedule):
    model = SparseMLP(4, 3, 2)
    scheduler = TemperatureScheduler(2.0, 0.1, 5, schedule, model=model)
    for epoch in range(8):
        assert scheduler.last_epoch == epoch
        assert temperatures(model) == {scheduler.get_temperature(epoch)} == {scheduler.get_last_temperature()}
        returned = scheduler.step()
        assert returned == scheduler.get_last_temperature()
    assert temperatures(model) == {0.1}


def test_keeps_step_with_an_lr_scheduler():
    """The same epoch under the same calls as torch.optim.lr_scheduler."""
    model = L0Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    rates = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=10)
    scheduler = TemperatureScheduler(1.0, 0.1, 10, "linear", model=model)
    for _ in range(12):
        assert scheduler.last_epoch == rates.last_epoch
        assert scheduler.get_last_temperature() == pytest.approx(rates.get_last_lr()[0])
        optimizer.step()
        rates.step()
        scheduler.step()


def test_resumes_with_the_same_sequence():
    full = TemperatureScheduler(2.0, 0.1, 9, "cosine", model=L0Linear(2, 2))
    whole = [full.step() for _ in range(12)]
    first = TemperatureScheduler(2.0, 0.1, 9, "cosine", model=L0Linear(2, 2))
    begun = [first.step() for _ in range(4)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    model = L0Linear(2, 2)
    second = TemperatureScheduler(model=model)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert temperatures(model) == {begun[-1]}
    assert begun + [second.step() for _ in range(8)] == whole
    third = TemperatureScheduler(2.0, 0.1, 9, "cosine", model=L0Linear(2, 2), last_epoch=4)
    assert third.last_epoch == 5 and third.get_last_temperature() == whole[4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "step"}, r"schedule: expected one of linear, exponential, cosine, got 'step'"),
        ({"final_temp": -1.0}, r"final_temp: expected a positive number, got -1.0"),
        ({"last_epoch": -1}, r"state_dict: expected a last_epoch of at least 0, got -1"),
        ({"extra": 1}, r"state_dict: expected the keys .*got .*extra"),
    ],
)
def test_bad_state_changes_nothing(change, message):
    model = L0Linear(2, 2)
    scheduler = TemperatureScheduler(1.5, model=model)
    scheduler.step()
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict({**before, "initial_temp": 9.0, **change})
    assert scheduler.state_dict() == before and temperatures(model) == {scheduler.get_last_temperature()}
    with pytest.raises(ValueError, match=r"state_dict: expected the keys"):
        scheduler.load_state_dict({})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(initial_temp=0), ValueError, r"initial_temp: expected a positive number, got 0"),
        (dict(final_temp=float("inf")), ValueError, r"final_temp: expected a positive number, got inf"),
        (dict(final_temp=None), TypeError, r"final_temp: expected a number, got NoneType"),
        (dict(anneal_epochs=-1), ValueError, r"anneal_epochs: expected a number of epochs, at least 0, got -1"),
        (dict(anneal_epochs="9"), TypeError, r"anneal_epochs: expected a number, got str"),
        (dict(schedule="quadratic"), ValueError, r"schedule: expected one of linear, exponential, cosine, got 'quad"),
        (dict(schedule=["linear"]), ValueError, r"schedule: expected one of .*got \['linear'\]"),
        (dict(model=3), TypeError, r"model: expected a torch.nn.Module, got int"),
        (dict(last_epoch=-2), ValueError, r"last_epoch: expected at least -1, got -2"),
        (dict(last_epoch=1.0), TypeError, r"last_epoch: expected an int, got 1.0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        TemperatureScheduler(**arguments)


def test_bad_calls():
    with pytest.raises(ValueError, match=r"model: expected one at construction"):
        TemperatureScheduler().step()
    for epoch in (-1, float("nan")):
        with pytest.raises(ValueError, match=r"epoch: expected at least 0"):
            TemperatureScheduler().get_temperature(epoch)
    assert TemperatureScheduler(anneal_epochs=0).get_temperature(0) == 0.1
