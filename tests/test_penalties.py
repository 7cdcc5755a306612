"""Penalties and counts of whole models: each gate once, and l0-python's numbers where those are right."""

import inspect
from operator import attrgetter

import pytest
import torch
from torch import nn

import l0fast
from l0fast import HardConcrete, L0Linear, penalties


def scatter(model):
    """Other logits for every gate."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("qz_logits", "log_alpha")):
                parameter.normal_(std=2)
    return model


def mixed(package=l0fast):
    return nn.Sequential(
        package.L0Conv2d(3, 4, 3, temperature=0.3),
        package.L0Conv2d(4, 5, 3, structured=True),
        package.L0DepthwiseConv2d(5, 3),
        nn.Flatten(),
        package.L0Linear(20, 6, temperature=0.8),
        nn.Linear(6, 2),
    )


@pytest.fixture
def both():
    """The same model in both packages."""
    peer = pytest.importorskip("l0", reason="l0-python is not installed: nothing to compare with")
    pytest.importorskip("l0.penalties")
    theirs, ours = scatter(mixed(peer)), mixed()
    ours.load_state_dict(theirs.state_dict())
    return peer.penalties, theirs, ours


def of_methods(*layers):
    return sum(layer.get_l0_penalty().double() for layer in layers)


FUNCTIONS = [name for name in penalties.__all__ if name.islower()]


@pytest.mark.parametrize("name", [*FUNCTIONS, "PenaltyTracker.log", "PenaltyTracker.plot_history"])
def test_arguments_of_l0_python(both, name):
    signatures = [inspect.signature(attrgetter(name)(module)) for module in (penalties, both[0])]
    ours, theirs = ([(p.name, p.default, p.kind) for p in s.parameters.values()] for s in signatures)
    assert ours == theirs
    assert hasattr(l0fast, name.partition(".")[0])


def test_agrees_with_l0_python(both):
    peer, theirs, ours = both
    expected = peer.compute_l0_penalty(theirs)
    got = penalties.compute_l0_penalty(ours)
    torch.testing.assert_close(got, expected)
    assert got.dtype == torch.float32 and got.shape == ()
    assert penalties.get_active_parameter_count(ours) == peer.get_active_parameter_count(theirs)
    expected.backward()
    got.backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_sparsity_stats_agree_with_l0_python(both):
    peer, theirs, ours = both
    expected, got = peer.get_sparsity_stats(theirs), penalties.get_sparsity_stats(ours)
    assert list(got) == list(expected)
    for name, stats in got.items():
        assert list(stats) == list(expected[name]) and type(stats["total_params"]) is int
        assert stats == pytest.approx(expected[name], rel=1e-5)
    assert got["2"]["total_params"] == 5  # channels, which l0-python finds as 4.9999


def test_one_launch_for_a_model(native, monkeypatch):
    calls = []
    whole = penalties.ops.l0_penalties
    monkeypatch.setattr(penalties.ops, "l0_penalties", lambda *a: calls.append(len(a[0])) or whole(*a))
    model = scatter(mixed())
    penalties.compute_l0_penalty(model)
    assert calls == [4]
    model[0].double()
    got = penalties.compute_l0_penalty(model)
    assert sorted(calls[1:]) == [1, 3]
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, of_methods(model[0], model[1], model[2], model[4]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Flatten(), HardConcrete(3), l0fast.L0Gate(3)], ids=repr)
def test_nothing_to_count(model):
    """Gates that have get_penalty only are not part of it, as in l0-python."""
    got = penalties.compute_l0_penalty(model)
    assert got.dtype == torch.float32 and got.shape == () and got == 0
    assert penalties.get_active_parameter_count(model) == 0 and penalties.get_sparsity_stats(model) == {}


def test_l2_leaves_gates_out(both):
    peer, theirs, ours = both
    gates = sum((p**2).sum() for name, p in theirs.named_parameters() if "weight_gates" in name)
    torch.testing.assert_close(penalties.compute_l2_penalty(ours), peer.compute_l2_penalty(theirs) - gates)
    assert gates > 1
    penalties.compute_l2_penalty(ours).backward()
    for name, parameter in ours.named_parameters():
        if "weight" in name and "gates" not in name:
            torch.testing.assert_close(parameter.grad, 2 * parameter.detach())
        else:
            assert parameter.grad is None


def test_l2_counts_what_has_weight_in_its_name():
    model = nn.ModuleDict(
        {"weighting": nn.Linear(2, 2), "gate_weight": l0fast.SampleGate(5, 2), "other": nn.Linear(3, 1)}
    )
    model["calibration_weights"] = l0fast.SparseCalibrationWeights(4)
    model["other"].weight.requires_grad_(False)
    expected = sum((p**2).sum() for p in (*model["weighting"].parameters(), model["calibration_weights"].log_weight))
    torch.testing.assert_close(penalties.compute_l2_penalty(model), expected)
    assert penalties.compute_l2_penalty(nn.Flatten()) == 0


def test_l2_dtypes_and_gradcheck():
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(2, 3).half())
    with torch.no_grad():
        model[1].weight.fill_(200)  # squares of 40,000: their sum passes half's 65,504
    truth = sum(layer.weight.double().square().sum() for layer in model)
    got = penalties.compute_l2_penalty(model)
    assert got.dtype == torch.float32 and got == truth.float()
    got.backward()
    assert model[1].weight.grad.dtype == torch.float16 and (model[1].weight.grad == 400).all()
    layer = nn.Linear(2, 3).double()
    assert penalties.compute_l2_penalty(layer).dtype == torch.float64
    inputs = [layer.weight.detach().clone().requires_grad_(), layer.bias.detach().clone().requires_grad_()]
    assert torch.autograd.gradcheck(penalties._SumOfSquares.apply, inputs)
    assert torch.autograd.gradgradcheck(penalties._SumOfSquares.apply, inputs)


def test_l0l2_is_their_sum():
    model = scatter(mixed())
    l0, l2 = penalties.compute_l0_penalty(model), penalties.compute_l2_penalty(model)
    torch.testing.assert_close(penalties.compute_l0l2_penalty(model), 1e-3 * l0 + 1e-4 * l2)
    torch.testing.assert_close(penalties.compute_l0l2_penalty(model, 0.5, torch.tensor(2.0)), 0.5 * l0 + 2 * l2)


def test_trains_under_compile(native):
    model = scatter(mixed())
    compiled = torch.compile(lambda: penalties.compute_l0l2_penalty(model), fullgraph=True, backend="aot_eager")
    for temperature in (0.5, 0.2, 0.7):
        penalties.update_temperatures(model, temperature)
        expected = penalties.compute_l0l2_penalty(model)
        torch.testing.assert_close(compiled(), expected)
        parameters = [p for name, p in model.named_parameters() if "bias" not in name and name != "5.weight"]
        grads = torch.autograd.grad(compiled(), parameters)
        for one, other in zip(grads, torch.autograd.grad(expected, parameters), strict=True):
            torch.testing.assert_close(one, other)


class Wrong(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def get_l0_penalty(self):
        return self.value

    def get_sparsity(self):
        return 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: penalties.compute_l0_penalty([L0Linear(2, 2)]),
            TypeError,
            r"model: expected a torch.nn.Module, got list",
        ),
        (lambda: penalties.compute_l2_penalty(None), TypeError, r"model: expected .*got NoneType"),
        (lambda: penalties.get_sparsity_stats(3), TypeError, r"model: expected .*got int"),
        (lambda: penalties.get_active_parameter_count(3), TypeError, r"model: expected .*got int"),
        (lambda: penalties.compute_l0_penalty(Wrong("3")), TypeError, r"Wrong.get_l0_penalty: expected .*got str"),
        (
            lambda: penalties.compute_l0_penalty(Wrong(torch.ones(2))),
            ValueError,
            r"Wrong.get_l0_penalty: .*shape \[2\]",
        ),
        (lambda: penalties.get_sparsity_stats(Wrong(0.0)), ValueError, r"model: expected a weight or gates to count"),
        (lambda: penalties.compute_l0l2_penalty(mixed(), "1"), TypeError, r"l0_lambda: expected a number, got str"),
        (lambda: penalties.compute_l0l2_penalty(mixed(), 1, float("nan")), ValueError, r"l2_lambda: expected a finite"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
