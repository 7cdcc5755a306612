"""Every layer equals the plain module of torch with its weight multiplied by the gates: outputs and gradients."""

import pytest
import torch
from compare import away_from_kinks
from gated_layers import ALL, LARGE, SEED, SMALL, fix_noise, gates_of, scatter
from test_hard_concrete import unclamped
from torch import nn

import l0fast
from l0fast import L0Conv2d, L0Linear, _linked

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9}


def test_cases_lie_on_both_sides_of_the_threshold():
    assert all(c.make().weight.numel() < _linked.LARGE for c in SMALL)
    assert all(c.make().weight.numel() >= _linked.LARGE for c in LARGE)


def gradients(y, layer, x, grad):
    inputs = [*layer.parameters(), *([x] if x.requires_grad else [])]
    return torch.autograd.grad(y, inputs, grad)


def assert_equal_layers(case, layer, x, seed, tolerance):
    if x.is_floating_point():
        x.requires_grad_()
    got, expected = layer(x), case.reference(layer, x, seed)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(expected)
    mask = away_from_kinks(unclamped(layer.gates.qz_logits.detach(), seed, **shape_of(layer.gates)))
    names = [*(name for name, _ in layer.named_parameters()), "input"]
    for name, a, b in zip(names, gradients(got, layer, x, grad), gradients(expected, layer, x, grad), strict=False):
        if name.endswith("qz_logits"):
            a, b = a[mask], b[mask]
        scale = max(1.0, b.abs().max().item()) if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}")


def shape_of(gates):
    return {
        "temperature": gates.temperature,
        "gamma": gates.gamma,
        "zeta": gates.zeta,
        "eval_temperature": gates.eval_temperature,
    }


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_against_plain_torch(monkeypatch, case, dtype, training):
    fix_noise(monkeypatch)
    layer = case.make(dtype=dtype).train(training)
    assert_equal_layers(case, layer, case.input(dtype), SEED if training else None, TOLERANCE[dtype])
    with torch.no_grad():
        x = case.input(dtype)
        expected = case.reference(layer, x, SEED if training else None)
        torch.testing.assert_close(layer(x), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_half_precision(monkeypatch, case, dtype):
    """The masked weight is exact to one rounding, whose error the product may add up."""
    fix_noise(monkeypatch)
    layer = case.make(dtype=dtype)
    y = layer(case.input(dtype))
    assert y.dtype == dtype and layer.masked_weight().dtype == dtype
    expected = layer.weight.float() * layer.spread(gates_of(case.make(dtype=torch.float32), SEED))
    eps = torch.finfo(dtype).eps
    z_error = 4 * eps * layer.weight.abs().max().item()  # the logits themselves are rounded
    torch.testing.assert_close(layer.masked_weight().float(), expected, rtol=2 * eps, atol=3 * z_error)
    y.sum().backward()
    for p in layer.parameters():
        assert p.grad.dtype == dtype and torch.isfinite(p.grad).all()


SMOOTH = [case for case in SMALL if "padding_idx" not in case.options]  # whose gradient is left out on purpose


@pytest.mark.parametrize("case", SMOOTH, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradcheck(monkeypatch, case, training):
    fix_noise(monkeypatch)
    layer = case.make(dtype=torch.float64).train(training)
    gates = layer.gates
    with torch.no_grad():  # no gate near a kink: a step of 0.05 takes it out of the band
        for _ in range(5):
            far = away_from_kinks(unclamped(gates.qz_logits, SEED if training else None, **shape_of(gates)))
            gates.qz_logits.add_(~far, alpha=0.05)
    assert far.all()
    x = case.input(torch.float64)
    inputs = [*layer.parameters(), *([x.requires_grad_()] if x.is_floating_point() else [])]
    assert torch.autograd.gradcheck(lambda *_: (layer(x), layer.get_l0_penalty()), inputs)


@pytest.mark.parametrize("case", [SMALL[0], SMALL[7], *LARGE[:1]], ids=str)
def test_non_contiguous_input_and_channels_last(monkeypatch, case):
    fix_noise(monkeypatch)
    layer = case.make()
    x = torch.randn(*reversed(case.shape)).permute(*reversed(range(len(case.shape))))
    assert not x.is_contiguous()
    assert_equal_layers(case, layer, x.requires_grad_(), SEED, 2e-5)
    if isinstance(layer, L0Conv2d):
        layer = layer.to(memory_format=torch.channels_last)
        assert not layer.weight.is_contiguous()
        for form in (torch.channels_last, torch.contiguous_format):
            assert_equal_layers(case, layer, case.input().contiguous(memory_format=form), SEED, 2e-5)
        (layer(case.input()).sum() + layer.get_l0_penalty()).backward()
        torch.testing.assert_close(layer.gates.qz_logits.grad.shape, layer.gates.qz_logits.shape)


def test_transposed_weight_of_a_large_linear(monkeypatch):
    """A weight that is not contiguous goes through the op and has the same gradients."""
    fix_noise(monkeypatch)
    layer = LARGE[0].make()
    layer.weight = nn.Parameter(torch.randn(512, 520).t())
    assert_equal_layers(LARGE[0], layer, LARGE[0].input(), SEED, 2e-5)


class OwnMaskedWeight(L0Linear):
    def masked_weight(self):
        return 2 * super().masked_weight()


@pytest.mark.parametrize("size", [4, 512])
def test_an_overridden_masked_weight_is_used(monkeypatch, size):
    fix_noise(monkeypatch)
    layer = scatter(OwnMaskedWeight(size, 520))
    x = torch.randn(2, size)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.masked_weight(), layer.bias))


@pytest.mark.parametrize("training", [True, False])
def test_sparse_mlp(monkeypatch, training):
    fix_noise(monkeypatch)
    model = scatter(l0fast.SparseMLP(12, 8, 3, use_l2=True)).train(training)
    x = torch.randn(5, 3, 4)
    seed = SEED if training else None
    v = [layer.weight * gates_of(layer, seed) for layer in (model.fc1, model.fc2, model.fc3)]
    h = torch.relu(nn.functional.linear(x.flatten(1), v[0], model.fc1.bias))
    h = torch.relu(nn.functional.linear(h, v[1], model.fc2.bias))
    expected = nn.functional.linear(h, v[2], model.fc3.bias)
    got = model(x)
    torch.testing.assert_close(got, expected)
    loss = [y.square().sum() + 0.1 * model.get_l0_loss() + 0.1 * model.get_l2_loss() for y in (got, expected)]
    for a, b in zip(*(torch.autograd.grad(one, list(model.parameters())) for one in loss), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_depthwise_with_somebodys_module_inside(monkeypatch):
    """A replaced or hooked convolution is called with the masked input, as in l0-python."""
    fix_noise(monkeypatch)
    layer = scatter(l0fast.L0DepthwiseConv2d(3, 3))
    x = torch.randn(2, 3, 6, 6)
    expected = layer(x)
    layer.depthwise_conv.register_forward_hook(lambda module, args, y: 2 * y)
    torch.testing.assert_close(layer(x), 2 * expected)
    layer = scatter(l0fast.L0DepthwiseConv2d(3, 3))
    layer.depthwise_conv.forward = lambda x: x + 1
    torch.testing.assert_close(layer(x), x * gates_of(layer, SEED).view(-1, 1, 1) + 1)
