"""HardConcrete as a module: options, overrides and hooks, noise, 16-bit floats."""

import math

import pytest
import torch
from compare import away_from_kinks
from test_hard_concrete import SEED, unclamped
from torch import nn

from l0fast import HardConcrete, L0Conv2d, L0DepthwiseConv2d, L0Linear, ops


def test_init_mean():
    for mean in (0.0, 1e-4, 0.3, 0.5, 0.9, 1.0):
        logits = HardConcrete(4, init_mean=mean, dtype=torch.float64).qz_logits
        assert torch.isfinite(logits).all()
        torch.testing.assert_close(torch.sigmoid(logits.detach()), torch.full((4,), mean).double(), rtol=0, atol=2e-6)
    assert (HardConcrete(4, init_mean=None).qz_logits == 0).all()
    gates = HardConcrete(4, init_mean=None)
    with torch.no_grad():
        gates.qz_logits.fill_(3)
    gates.reset_parameters()
    assert (gates.qz_logits == 3).all()
    gates.init_mean = 0.5
    gates.reset_parameters()
    assert (gates.qz_logits == 0).all()


def test_input_shape():
    gates = HardConcrete(3).eval()
    assert gates((8, 3)).shape == (3, 1)
    assert gates(input_shape=(8, 3, 5, 5)).shape == (3, 1, 1, 1)
    assert gates((3,)).shape == (3,) and HardConcrete(3, 4)((2,)).shape == (3, 4)
    assert gates(torch.Size([2, 3, 4])).shape == (3, 1, 1)


def logits(*size, scale=3.0):
    return torch.linspace(-scale, scale, math.prod(size)).reshape(size)


def filled(gates):
    with torch.no_grad():
        gates.qz_logits.copy_(logits(*gates.gate_size))
    return gates


def test_temperature_takes_effect_at_once():
    gates = filled(HardConcrete(50, temperature=2.0)).eval()
    for temperature in (0.1, 0.5, 3):
        gates.temperature = temperature
        assert type(gates.temperature) is float
        s = torch.sigmoid(gates.qz_logits / temperature)
        torch.testing.assert_close(gates(), (s * 1.2 - 0.1).clamp(0, 1))
        p = torch.sigmoid(gates.qz_logits - temperature * math.log(0.1 / 1.1))
        torch.testing.assert_close(gates.get_active_prob(), p)
        torch.testing.assert_close(gates.get_penalty(), p.sum())
        assert gates.get_sparsity() == pytest.approx(1 - p.mean().item(), abs=1e-6)
        assert gates.get_num_active() == int((p > 0.5).sum())


def test_original_authors_test_time_gate():
    gates = filled(HardConcrete(50, temperature=0.2, eval_temperature=False)).eval()
    torch.testing.assert_close(gates(), (torch.sigmoid(gates.qz_logits) * 1.2 - 0.1).clamp(0, 1))
    weight = torch.randn(50)
    torch.testing.assert_close(gates.masked(weight), weight * gates())


class Narrow(HardConcrete):
    LOG_ALPHA_BOUND = 1.0
    _UNIFORM_EPS = 0.3


@pytest.mark.parametrize("training", [True, False])
def test_bounds_of_a_subclass(monkeypatch, training):
    monkeypatch.setattr(HardConcrete, "_draw_seed", lambda self: SEED)
    gates = filled(Narrow(20, 30)).train(training)
    seed = SEED if training else None
    expected = ops.hard_concrete(gates.qz_logits, seed, temperature=0.5, bound=1.0, uniform_eps=0.3)
    assert not torch.equal(expected, ops.hard_concrete(gates.qz_logits, seed, temperature=0.5))
    assert torch.equal(gates(), expected)
    weight = torch.randn(20, 30, requires_grad=True)
    for w in (weight, nn.Parameter(weight.detach())):  # through the op, and through a layer's own node
        v = gates.masked(w)
        torch.testing.assert_close(v, w * expected, rtol=1e-6, atol=0)
        (got,) = torch.autograd.grad(v.sum(), gates.qz_logits)
        assert (got[gates.qz_logits.abs() > 1] == 0).all() and got.abs().sum() > 0
    torch.testing.assert_close(gates.get_penalty(), ops.l0_penalty(gates.qz_logits, temperature=0.5, bound=1.0))
    (slope,) = torch.autograd.grad(gates.get_penalty(), gates.qz_logits)
    assert (slope[gates.qz_logits.abs() > 1] == 0).all() and (slope[gates.qz_logits.abs() < 1] > 0).all()


def test_bad_bounds_of_a_subclass():
    class Wrong(HardConcrete):
        _UNIFORM_EPS = 0.6

    gates = Wrong(2, 2)
    for call in (gates, lambda: gates.masked(nn.Parameter(torch.ones(2, 2))), lambda: gates.masked(torch.ones(2, 2))):
        with pytest.raises(ValueError, match=r"uniform_eps: expected a number from 0 to below 1/2, got 0.6"):
            call()


class Sampled(HardConcrete):
    def _sample_gates(self):
        return torch.full_like(self.qz_logits, 0.25) + 0 * self.qz_logits


class Deterministic(HardConcrete):
    def _deterministic_gates(self):
        return torch.full_like(self.qz_logits, 0.5)


class Forward(HardConcrete):
    def forward(self, input_shape=None):
        return 2 * super().forward(input_shape)


class Seeded(HardConcrete):
    def _draw_seed(self):
        return SEED


def patched(*size):
    gates = HardConcrete(*size)
    gates.forward = lambda input_shape=None: torch.full(gates.gate_size, 3.0)
    return gates


def forward_hook(*size):
    gates = HardConcrete(*size)
    gates.register_forward_hook(lambda module, args, output: output * 0 + 5)
    return gates


def pre_hook(*size):
    gates = HardConcrete(*size)

    def open_all(module, args):
        module.qz_logits.data.fill_(20.0)

    gates.register_forward_pre_hook(open_all)
    return gates


CASES = [Sampled, Deterministic, Forward, Seeded, patched, forward_hook, pre_hook]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("make", CASES, ids=lambda f: f.__name__)
def test_overrides_and_hooks_hold_in_layers(make, training):
    layers = [L0Linear(4, 3), L0Conv2d(2, 3, 2), L0Conv2d(2, 3, 2, structured=True), L0DepthwiseConv2d(3, 2)]
    inputs = [torch.randn(5, 4), torch.randn(1, 2, 5, 5), torch.randn(1, 2, 5, 5), torch.randn(1, 3, 5, 5)]
    for layer, x in zip(layers, inputs, strict=True):
        name = "weight_gates" if layer.gate_dim is None else "channel_gates"
        setattr(layer, name, filled(make(*layer.gates.gate_size)))
        layer.train(training)
        torch.manual_seed(3)
        masked = layer.masked_weight()
        torch.manual_seed(3)
        torch.testing.assert_close(masked, layer.weight * layer.spread(layer.gates()))
        torch.manual_seed(3)
        y = layer(x)
        # Somebody's own depthwise convolution would be given the masked input; here both are the same.
        plain = {4: nn.functional.conv2d, 2: lambda x, w, b, **_: nn.functional.linear(x, w, b)}[x.dim()]
        groups = 3 if isinstance(layer, L0DepthwiseConv2d) else 1
        torch.testing.assert_close(y, plain(x, masked, layer.bias, groups=groups))


def test_backward_hooks_on_the_gates_fire():
    layer, seen = L0Linear(4, 3), []
    layer.weight_gates.register_full_backward_hook(lambda module, grad_in, grad_out: seen.append(grad_out[0].shape))
    layer(torch.randn(2, 4)).sum().backward()
    assert seen == [(3, 4)]


def test_hooks_of_all_modules_see_the_gates():
    layer, seen = L0Linear(4, 3), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(module))
    try:
        layer(torch.randn(2, 4))
    finally:
        handle.remove()
    assert seen == [layer.weight_gates, layer]


def test_noise_follows_torchs_generator():
    gates = HardConcrete(100)
    torch.manual_seed(5)
    first, second = gates(), gates()
    torch.manual_seed(5)
    assert torch.equal(gates(), first) and torch.equal(gates(), second) and not torch.equal(first, second)
    layer, x = L0Linear(9, 7), torch.randn(3, 9)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first) and torch.equal(layer(x), second) and not torch.equal(first, second)
    assert torch.equal(gates.eval()(), gates())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    gates = filled(HardConcrete(40, dtype=dtype))
    assert gates().dtype == gates.eval()().dtype == gates.get_active_prob().dtype == dtype
    wide = filled(HardConcrete(40, dtype=torch.float64)).eval()
    with torch.no_grad():
        wide.qz_logits.copy_(gates.qz_logits.double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(gates().double(), wide(), rtol=eps, atol=eps)
    assert gates.get_penalty().dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(gates.get_penalty().double(), wide.get_penalty(), rtol=1e-6, atol=0)
    gates.train()().sum().backward()
    assert gates.qz_logits.grad.dtype == dtype and torch.isfinite(gates.qz_logits.grad).all()


def test_sparsity_in_bfloat16_is_not_rounded_to_8_bits():
    """Half the gates at P = 0.5, half at P = 1: 0.75 open, and 2^-10 more of each other kind moves it by less."""
    gates = HardConcrete(4096, init_mean=None, dtype=torch.bfloat16)
    with torch.no_grad():
        gates.qz_logits.fill_(20.0)
        gates.qz_logits[:9] = -20.0
    p = gates.get_active_prob().double()
    assert gates.get_sparsity() == pytest.approx(1 - p.mean().item(), rel=1e-5) and gates.get_sparsity() > 0.002


def test_masked_gradient_against_plain_torch():
    gates = filled(HardConcrete(30, 40, dtype=torch.float64))
    weight = nn.Parameter(torch.randn(30, 40, dtype=torch.float64))
    torch.manual_seed(1)
    v = gates.masked(weight)
    torch.manual_seed(1)
    seed = gates._draw_seed()
    mask = away_from_kinks(unclamped(gates.qz_logits.detach(), seed, temperature=0.5))
    expected = weight * ops.hard_concrete(gates.qz_logits, seed, temperature=0.5)
    torch.testing.assert_close(v, expected)
    grad = torch.randn(30, 40, dtype=torch.float64)
    ours, plain = (torch.autograd.grad(t, (weight, gates.qz_logits), grad) for t in (v, expected))
    torch.testing.assert_close(ours[0], plain[0])
    torch.testing.assert_close(ours[1][mask], plain[1][mask])
