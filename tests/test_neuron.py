"""The neuron-level layers against plain torch in float64: outputs, gradients, priors and counts."""

import copy
import math

import pytest
import torch
from neuron_layers import LAYERS, make, plain_cost, plain_forward, plain_gates, plain_probability
from torch import nn

import l0fast
from l0fast.neuron import L0Conv2d, L0Dense, MAPConv2d, MAPDense

EVERY = pytest.mark.parametrize("name", LAYERS)
MODES = pytest.mark.parametrize("mode", ["shared", "local", "eval"])


def in_mode(name, mode, dtype=torch.float64):
    layer, x = make(name, dtype, local_rep=mode == "local")
    return layer.train(mode != "eval"), x


@EVERY
@MODES
def test_forward_and_gradients(name, mode):
    layer, x = in_mode(name, mode)
    z = plain_gates(layer, len(x) if mode == "local" else None)
    assert (z == 0).any() and ((z > 0) & (z < 1)).any()
    x.requires_grad_()
    inputs = [x, *layer.parameters()]
    got, expected = layer(x), plain_forward(layer, x)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@EVERY
@MODES
def test_float32(name, mode):
    layer, x = in_mode(name, mode, torch.float32)
    exact = copy.deepcopy(layer).double()
    torch.testing.assert_close(layer(x).double(), plain_forward(exact, x.double()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.regularization().double(), -plain_cost(exact), rtol=1e-5, atol=0)


@EVERY
@MODES
def test_gradcheck(name, mode):
    """Gates at 0 and 1 are flat on both sides, so long as none lies within the step of the difference."""
    layer, x = in_mode(name, mode)
    parameters = dict(layer.named_parameters())

    def output(x, *values):
        own = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, own, (x,))

    assert torch.autograd.gradcheck(output, (x.requires_grad_(), *parameters.values()), fast_mode=True)


@EVERY
def test_local_rep_is_a_loop_over_examples(name):
    """Example b draws what a batch that begins with it would draw with ``first_index = b * gates``."""
    layer, x = in_mode(name, "local")
    z = layer.sample_z(len(x))
    assert z.shape == (len(x), len(layer.qz_loga)) and not torch.equal(z[0], z[1])
    for b, (example, out) in enumerate(zip(x, layer(x), strict=True)):
        one = copy.deepcopy(layer).eval()
        one.masked_parameters = lambda gates=z[b], one=one: masked(one, gates)
        torch.testing.assert_close(one(example[None])[0], out, rtol=1e-10, atol=1e-10)


def masked(layer, z):
    weights = layer.weights * z.view(-1, *[1] * (layer.weights.dim() - 1))
    return weights, layer.bias * z if layer.bias_is_gated and layer.bias is not None else layer.bias


def test_local_rep_takes_any_number_of_middle_dimensions():
    layer = L0Dense(3, 2, local_rep=True)
    layer._draw_seed = lambda: torch.tensor([5])
    x = torch.randn(4, 6, 3)
    together, one_by_one = layer(x), torch.stack([layer(x[:, k]) for k in range(6)], 1)
    torch.testing.assert_close(together, one_by_one)
    with pytest.raises(ValueError, match=r"input: expected a batch, .*got \[3\]"):
        layer(torch.randn(3))
    with pytest.raises(ValueError, match=r"input: expected a batch, .*got \[1, 5, 5\]"):
        L0Conv2d(1, 2, 3, local_rep=True)(torch.randn(1, 5, 5))


@EVERY
def test_regularization(name):
    layer, _ = make(name)
    parameters = list(layer.parameters())
    value = layer.regularization()
    torch.testing.assert_close(value, -plain_cost(layer), rtol=1e-10, atol=0)
    expected = torch.autograd.grad(-plain_cost(layer), parameters)
    for a, b in zip(torch.autograd.grad(value, parameters), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for parameter in parameters:  # and central differences, which know no formula
        flat, grad = parameter.data.view(-1), torch.autograd.grad(layer.regularization(), parameter)[0].view(-1)
        for i in (0, len(flat) - 1):
            ends = []
            for step in (1e-5, -2e-5):
                flat[i] += step
                ends.append(layer.regularization().item())
            flat[i] += 1e-5
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(grad[i].item(), rel=1e-6, abs=1e-6)


@EVERY
def test_without_weight_decay(name):
    layer, _ = make(name)
    layer.prior_prec = 0.0
    torch.testing.assert_close(layer.regularization(), -plain_cost(layer), rtol=1e-10, atol=0)


def test_regularization_of_half_precision_is_summed_in_float32():
    layer = L0Dense(2000, 100, weight_decay=1e3).half()
    assert layer.regularization().dtype == torch.float32 and torch.isfinite(layer.regularization())


@EVERY
def test_counts(name):
    layer, x = make(name)
    p = plain_probability(layer).detach()
    layer(x)
    biases = 0 if layer.bias is None else 1
    if isinstance(layer, L0Dense):
        l0 = p.sum() * 4 + 4 * biases
        flops = 4 * (p.sum() + p.sum() - 1 + biases)
        bias_squares = 0.0 if layer.bias is None else layer.bias.square().sum()
        l2 = (p * layer.weights.square().sum(1)).sum() + bias_squares
    else:
        inputs = layer.weights[0].numel()
        places = plain_forward(layer, x)[0, 0].numel()
        l0 = p.sum() * (inputs + biases)
        flops = p.sum() * places * (inputs + inputs - 1 + biases)
        squares = layer.weights.square().sum((1, 2, 3)) + (0.0 if layer.bias is None else layer.bias.square())
        l2 = (p * squares).sum()
    assert layer.count_l0() == pytest.approx(l0.item()) and layer.count_l2() == pytest.approx(l2.item())
    assert layer.count_expected_flops_and_l0() == (pytest.approx(flops.item()), pytest.approx(l0.item()))
    assert l0fast.compute_l0_penalty(nn.Sequential(layer)).item() == pytest.approx(p.sum().item())


def test_no_negative_additions():
    layer = L0Dense(1, 3, bias=False)
    layer.qz_loga.data.fill_(-10)
    flops, _ = layer.count_expected_flops_and_l0()
    assert flops == pytest.approx(3 * plain_probability(layer).item())


def test_operations_need_an_input():
    for layer in (L0Conv2d(1, 2, 3), MAPConv2d(1, 2, 3)):
        with pytest.raises(RuntimeError, match="input_shape: expected at least one forward"):
            layer.count_expected_flops_and_l0()
        layer(torch.randn(2, 1, 5, 4))
        assert layer.input_shape == (1, 5, 4)
        layer.count_expected_flops_and_l0()


def test_constrain_parameters():
    layer = L0Dense(3, 2)
    layer.qz_loga.data.copy_(torch.tensor([-9.0, math.log(1.5), 9.0]))
    layer.constrain_parameters()
    torch.testing.assert_close(layer.qz_loga.detach(), torch.tensor([0.01, 1.5, 100.0]).log())


def test_initial_values():
    torch.manual_seed(0)
    for layer, inputs in ((L0Dense(400, 300, droprate_init=0.2), 400), (L0Conv2d(20, 500, 5, droprate_init=0.2), 500)):
        assert layer.weights.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.02)
        assert torch.sigmoid(layer.qz_loga).mean().item() == pytest.approx(0.8, abs=1e-3)
        assert layer.qz_loga.std().item() == pytest.approx(1e-2, rel=0.15)
        assert (layer.bias == 0).all()


def test_noise_comes_from_torch_and_differs_from_call_to_call():
    layer, x = L0Dense(50, 2), torch.randn(3, 50)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first) and not torch.equal(first, second)
    layer.eval()
    assert torch.equal(layer(x), layer(x)) and torch.equal(layer.sample_z(3, sample=False)[2], layer.test_gates())


def test_state_dict():
    """The original's names, and nothing else."""
    for name in LAYERS:
        layer, x = make(name)
        names = ["weights", "qz_loga"] + ([] if layer.bias is None else ["bias"])
        assert list(layer.state_dict()) == names
        other = LAYERS[name][0]().double()
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other.eval()(x), layer.eval()(x))


def test_ordinary_layers():
    x = torch.randn(3, 5)
    dense, conv = MAPDense(5, 4, weight_decay=3), MAPConv2d(2, 6, 3, padding=1, stride=2, weight_decay=3)
    dense.bias.data.normal_()
    torch.testing.assert_close(dense(x), nn.functional.linear(x, dense.weight.t(), dense.bias))
    assert dense.count_expected_flops_and_l0() == (4 * (5 + 4 + 1), 24)
    conv(torch.randn(1, 2, 9, 8))
    assert conv.count_expected_flops_and_l0() == (6 * 5 * 4 * (18 + 17 + 1), 6 * 19)
    for layer in (dense, conv):
        squares = sum(p.square().sum() for p in layer.parameters())
        torch.testing.assert_close(layer.regularization(), -1.5 * squares)
    assert MAPDense(5, 4, bias=False).bias is None


@pytest.mark.parametrize("local_rep", [False, True])
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_compile(name, local_rep):
    layer, x = make(name, torch.float32, local_rep=local_rep)
    compiled = torch.compile(lambda x: layer(x).square().mean() - layer.regularization(), backend="aot_eager")
    loss = compiled(x)
    torch.testing.assert_close(loss, plain_forward(layer, x).square().mean() + plain_cost(layer))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
