"""Which modules count for a model's L0 penalty: containers, overridden methods, shared gates, wrappers."""

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


def of_methods(*layers):
    return sum(layer.get_l0_penalty().double() for layer in layers)


class Summing(nn.Module):
    """Sums its children itself, and has a gate of its own and a child that it leaves out."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.left_out, self.own = L0Linear(3, 4), L0Linear(4, 5), L0Linear(5, 2), HardConcrete(7)

    def get_l0_penalty(self):
        return self.a.get_l0_penalty() + self.b.weight_gates.get_active_prob().sum() + self.own.get_penalty()


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.more = inner, L0Linear(2, 2)

    def get_l0_penalty(self):
        return self.inner.get_l0_penalty() + self.more.get_l0_penalty()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True])
def test_containers_that_sum_their_children_count_once(mode, frozen):
    """l0-python adds such a container and its children. Known from what the method reads, in every grad mode."""
    inner = Summing()
    # Children that are found before their parents: a layer, and a container.
    model = scatter(nn.Sequential(inner.a, inner, Outer(inner), L0Linear(2, 3)))
    model.requires_grad_(not frozen)
    model[0](torch.ones(2, 3)), inner.left_out(torch.ones(2, 5))  # whatever a forward leaves behind, the count stays
    layers = [inner.a, inner.b, inner.left_out, model[2].more, model[3]]
    with mode():
        expected = of_methods(*layers) + inner.own.get_penalty()
        torch.testing.assert_close(penalties.compute_l0_penalty(model).double(), expected, rtol=1e-5, atol=0)
        count = penalties.get_active_parameter_count(model)
        assert expected - 5 < count <= expected
        assert list(penalties.get_sparsity_stats(model)) == ["0", "1.b", "1.left_out", "2.more", "3"]


def test_gradients_through_a_container():
    model = scatter(nn.Sequential(Summing(), L0Linear(2, 3)))
    penalties.compute_l0_penalty(model).backward()
    for name, parameter in model.named_parameters():
        if name.endswith("qz_logits"):
            p = torch.sigmoid(parameter - 0.5 * torch.log(torch.tensor(0.1 / 1.1))).detach()
            torch.testing.assert_close(parameter.grad, p * (1 - p))


class Doubled(L0Linear):
    def get_l0_penalty(self):
        return 2 * super().get_l0_penalty()


class OwnGates(HardConcrete):
    def get_penalty(self):
        return self.qz_logits.sum()


def test_overridden_methods_are_asked():
    doubled, replaced, patched = Doubled(3, 4), L0Linear(3, 4), L0Linear(3, 4)
    replaced.weight_gates = OwnGates(4, 3)
    patched.get_l0_penalty = lambda: torch.tensor([5.0])
    model = scatter(nn.Sequential(doubled, replaced, patched))
    expected = 2 * doubled.weight_gates.get_penalty() + replaced.weight_gates.qz_logits.sum() + 5
    torch.testing.assert_close(penalties.compute_l0_penalty(model), expected)


def test_overridden_methods_under_compile(native):
    model = scatter(nn.Sequential(Doubled(3, 4), L0Linear(3, 4)))
    compiled = torch.compile(lambda: penalties.compute_l0_penalty(model), fullgraph=True, backend="aot_eager")
    assert compiled() == penalties.compute_l0_penalty(model)


class Low(nn.Module):
    def get_l0_penalty(self):
        return torch.tensor(3.0, dtype=torch.bfloat16)


def test_other_modules_are_asked():
    calibration = l0fast.SparseCalibrationWeights(50)
    model = scatter(nn.ModuleList([calibration, Low(), L0Linear(2, 2)]))
    got = penalties.compute_l0_penalty(model)
    torch.testing.assert_close(got, calibration.get_l0_penalty() + 3 + model[2].get_l0_penalty())
    assert got.dtype == torch.float32
    assert penalties.get_sparsity_stats(model)["0"]["total_params"] == 50


def test_shared_modules_and_shared_gates():
    layer = L0Linear(3, 3)
    assert penalties.compute_l0_penalty(nn.Sequential(layer, layer)) == layer.get_l0_penalty()
    other = L0Linear(3, 3)
    other.weight_gates = layer.weight_gates
    torch.testing.assert_close(
        penalties.compute_l0_penalty(nn.Sequential(layer, other)), 2 * layer.get_l0_penalty(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "torch.compile"])
def test_wrapped_models(wrap):
    """torch.compile's wrapper hands every method on: l0-python counts such a layer twice."""
    for inner in (scatter(nn.Sequential(l0fast.L0Conv2d(2, 3, 3), L0Linear(3, 4))), L0Linear(3, 4)):
        wrapped = wrap(inner)
        assert penalties.compute_l0_penalty(wrapped) == penalties.compute_l0_penalty(inner)
        assert penalties.compute_l2_penalty(wrapped) == penalties.compute_l2_penalty(inner)
        assert len(penalties.get_sparsity_stats(wrapped)) == len(penalties.get_sparsity_stats(inner))
        penalties.update_temperatures(wrapped, 0.123)
        assert {m.temperature for m in inner.modules() if isinstance(m, HardConcrete)} == {0.123}
