"""The stand-alone gates, and against l0-python's where both are deterministic."""

import inspect
import time

import numpy as np
import pytest
import torch

import l0fast
from l0fast import FeatureGate, HardConcrete, HybridGate, L0Gate, SampleGate

MAKE = {
    "L0Gate": lambda package, **kw: package.L0Gate(30, 0.4, 0.6, **kw),
    "SampleGate": lambda package, **kw: package.SampleGate(30, 9, **kw),
    "FeatureGate": lambda package, **kw: package.FeatureGate(30, 9, **kw),
    "HybridGate": lambda package, **kw: package.HybridGate(30, target_items=20, **kw),
}


@pytest.fixture
def peer():
    return pytest.importorskip("l0", reason="l0-python is not installed: nothing to compare with")


def pair(peer, name):
    """The gate of both packages in evaluation, with the same random logits."""
    theirs, ours = MAKE[name](peer).eval(), MAKE[name](l0fast).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def spread(gate, low=-3.0, high=3.0):
    """Opens some gates and closes others: logits from low to high."""
    with torch.no_grad():
        logits = next(gate.parameters())
        logits.copy_(torch.linspace(low, high, logits.numel()))
    return gate


def generator_state():
    return torch.random.get_rng_state()


@pytest.mark.parametrize("name", MAKE)
def test_names_arguments_and_attributes_of_l0_python(peer, name):
    theirs, ours = getattr(peer, name), getattr(l0fast, name)
    for method in ["__init__", *(m for m in vars(theirs) if not m.startswith("_"))]:
        parameters = list(inspect.signature(getattr(ours, method)).parameters.values())
        expected = inspect.signature(getattr(theirs, method)).parameters.values()
        for one, other in zip(parameters, expected, strict=False):
            assert (one.name, one.default, one.kind) == (other.name, other.default, other.kind)
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[len(expected) :])
    old, new = MAKE[name](peer), MAKE[name](l0fast)
    for attribute in set(vars(old)) - {"_parameters", "_modules", "_buffers"}:
        if not attribute.startswith("_"):
            assert getattr(new, attribute) == getattr(old, attribute), attribute
    assert list(new.state_dict()) == list(old.state_dict())
    torch.testing.assert_close(new.state_dict(), old.state_dict())


@pytest.mark.parametrize("name", ["L0Gate", "SampleGate", "FeatureGate"])
def test_gates_penalty_and_indices_agree_with_l0_python(peer, name):
    theirs, ours = pair(peer, name)
    torch.testing.assert_close(ours.get_gates(), theirs.get_gates())
    torch.testing.assert_close(ours.get_penalty(), theirs.get_penalty())
    for threshold in (0.5, 0.0, 0.9):
        assert torch.equal(ours.get_active_indices(threshold), theirs.get_active_indices(threshold))
    x = torch.randn(4, 30, 2)
    torch.testing.assert_close(ours.apply_gates(x, 1), theirs.apply_gates(x, 1))
    torch.testing.assert_close(ours.apply_gates(x, -2), theirs.apply_gates(x, -2))
    torch.testing.assert_close(ours.apply_gates(x[0]), theirs.apply_gates(x[0]))


def test_selections_agree_with_l0_python(peer):
    data, weights = torch.randn(30, 4), torch.rand(30) - 0.2
    theirs, ours = pair(peer, "SampleGate")
    for one, other in zip(ours.select_samples(data), theirs.select_samples(data), strict=True):
        assert torch.equal(one, other)
    got, expected = (gate.select_weighted_samples(data, weights) for gate in (ours, theirs))
    assert torch.equal(got[0], expected[0]) and torch.equal(got[2], expected[2])
    torch.testing.assert_close(got[1], expected[1])
    theirs, ours = pair(peer, "FeatureGate")
    data, names = torch.randn(2, 5, 30), [f"x{k}" for k in range(30)]
    for one, other in zip(ours.select_features(data), theirs.select_features(data), strict=True):
        assert torch.equal(one, other)
    got, expected = (gate.select_features_with_names(data, names) for gate in (ours, theirs))
    assert torch.equal(got[0], expected[0]) and got[1] == expected[1] and len(got[1]) > 0
    torch.testing.assert_close(ours.get_feature_importance(), theirs.get_feature_importance())
    assert not ours.get_feature_importance().requires_grad


@pytest.mark.parametrize("seed", [0, 7, -3, np.int64(11), None])
def test_hybrid_selection_agrees_with_l0_python(peer, seed):
    theirs, ours = pair(peer, "HybridGate")
    data = torch.randn(30, 2)
    results = []
    for gate in (ours, theirs):
        torch.manual_seed(5)  # what decides without a seed
        results.append(gate.select(data, random_seed=seed))
    for one, other in zip(results[0][:2], results[1][:2], strict=True):
        assert torch.equal(one, other)
    assert results[0][2].tolist() == results[1][2].tolist() and results[0][2].dtype == results[1][2].dtype == "<U6"


def test_hybrid_parts():
    gate = spread(HybridGate(40, 0.25, 0.5, target_items=20)).eval()
    data = torch.arange(40.0)
    chosen, indices, kinds = gate.select(data, random_seed=1)
    by_gate = gate.l0_gate.get_active_indices()
    assert (gate.n_l0, gate.n_random) == (5, 10)
    assert torch.equal(indices, indices.unique()) and torch.equal(chosen, data[indices])
    assert torch.equal(indices[torch.from_numpy(kinds == "l0")], by_gate)
    assert (kinds == "random").sum() == 10
    everything = HybridGate(6, 0.0, 1.0, target_items=6).eval().select(torch.arange(6))
    assert everything[1].tolist() == list(range(6)) and set(everything[2]) == {"random"}
    nothing = HybridGate(4).eval().select(torch.arange(4))  # a fifth of 4 is 0
    assert len(nothing[0]) == len(nothing[1]) == len(nothing[2]) == 0 and nothing[2].dtype == "<U6"


@pytest.mark.parametrize("target", [None, 0])
def test_hybrid_target_default(target):
    assert HybridGate(100, target_items=target).target_items == 20


class OwnNoise(HardConcrete):
    def _sample_gates(self):
        return torch.rand_like(self.qz_logits)


class OwnSelection(SampleGate):
    def get_active_indices(self, threshold=0.5):
        return (torch.rand(self.size) > threshold).nonzero()[:, 0]


def hooked(gate):
    gate.l0_gate.gates.register_forward_hook(lambda module, inputs, z: z * torch.rand(1))
    return gate


def with_gates(gate, **replaced):
    for name, module in replaced.items():
        setattr(gate.l0_gate if name == "gates" else gate, name, module)
    return gate


@pytest.mark.parametrize(
    "gate",
    [
        HybridGate(200, target_items=100),
        with_gates(HybridGate(200), gates=OwnNoise(200)),
        with_gates(HybridGate(200), l0_gate=OwnSelection(200, 50)),
        hooked(HybridGate(200, target_items=180)),
    ],
    ids=["plain", "own noise", "own selection", "hook"],
)
def test_random_seed_repeats_the_choice_and_leaves_torch_alone(gate):
    data = torch.arange(200)
    before = generator_state()
    first = gate.select(data, random_seed=3)
    assert torch.equal(generator_state(), before)
    torch.rand(10)
    again, other = gate.select(data, random_seed=3), gate.select(data, random_seed=4)
    assert torch.equal(first[1], again[1]) and first[2].tolist() == again[2].tolist()
    assert not torch.equal(first[1], other[1])
    by_gate = [set(r[1][torch.from_numpy(r[2] == "l0")].tolist()) for r in (first, other)]
    assert by_gate[0] != by_gate[1], "the gates' own noise follows the seed"


def test_without_a_seed_torch_decides():
    gate, data = HybridGate(200), torch.arange(200)
    torch.manual_seed(1)
    first, second = gate.select(data)[1], gate.select(data)[1]
    torch.manual_seed(1)
    assert torch.equal(gate.select(data)[1], first)
    assert not torch.equal(first, second)


def test_five_million_items(native):
    """In a few times what torch.randperm alone takes here, however busy the machine is; l0-python: 45 times."""
    count = 5_000_000
    gate, data = HybridGate(count, target_items=1_000_000), torch.zeros(count)
    shuffles, selections = [], []
    for _ in range(3):
        begin = time.perf_counter()
        torch.randperm(count)
        shuffles.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        gate.select(data, random_seed=1)
        selections.append(time.perf_counter() - begin)
    assert min(selections) < 8 * min(shuffles)


def test_training_draws_and_evaluation_does_not():
    gate = SampleGate(1000, 500)
    assert not torch.equal(gate.get_active_indices(), gate.get_active_indices())
    assert torch.equal(gate.eval().get_active_indices(), gate.get_active_indices())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_reach_gates_and_data(dtype):
    gate = spread(L0Gate(6, dtype=dtype), -0.5, 0.5).eval()
    x = torch.randn(2, 6, dtype=dtype, requires_grad=True)
    gate.apply_gates(x, dim=1).sum().backward()
    torch.testing.assert_close(x.grad, gate.get_gates().detach().expand(2, 6))
    assert gate.gates.qz_logits.grad.abs().min() > 0
    sample, weights = spread(SampleGate(8, 4, dtype=dtype)).eval(), torch.rand(8, dtype=dtype, requires_grad=True)
    _, gated, indices = sample.select_weighted_samples(torch.randn(8), weights)
    gated.sum().backward()
    torch.testing.assert_close(weights.grad[indices], sample.get_gates().detach()[indices])


def test_ends_of_the_range():
    assert SampleGate(5, 5).eval().get_active_indices().tolist() == list(range(5))
    assert len(SampleGate(5, 0).eval().get_active_indices()) == 0
    assert FeatureGate(5, 9).init_mean == 0.99
    assert len(FeatureGate(5, 0).eval().get_active_indices()) == 0


def test_options_reach_the_gates():
    gate = HybridGate(10, eval_temperature=False, dtype=torch.float64, device="cpu")
    assert gate.l0_gate.gates.eval_temperature is False and gate.l0_gate.gates.qz_logits.dtype == torch.float64


def test_temperature_is_that_of_the_gates():
    gate = L0Gate(4)
    gate.temperature = 0.2
    assert gate.gates.temperature == 0.2
    l0fast.update_temperatures(gate, 0.1)
    assert gate.temperature == 0.1
