"""Gated layers on the device: the same numbers as on the CPU, autocast, compile, state between devices."""

import copy

import pytest
import torch
from compare import assert_as_good_as_torch
from gated_layers import ALL, SEED, fix_noise
from torch import nn

import l0fast
from l0fast import HardConcrete


@pytest.fixture
def fixed_noise(monkeypatch):
    """The same seed at every draw, on whatever device the gates are."""
    fix_noise(monkeypatch)
    monkeypatch.setattr(HardConcrete, "_draw_seed", lambda gates: SEED.to(gates.qz_logits.device))


def step(model, x, where, dtype=torch.float32, training=True):
    """Output, penalty and all gradients, on the CPU, of a copy of the model."""
    model = copy.deepcopy(model).to(where, dtype).train(training)
    x = x.detach().clone().to(where, dtype).requires_grad_() if x.is_floating_point() else x.to(where)
    y = model(x)
    penalty = model.get_l0_loss() if isinstance(model, l0fast.SparseMLP) else model.get_l0_penalty()
    pull = torch.linspace(-1, 1, y.numel(), device=where, dtype=dtype).view(y.shape)
    ((y * pull).sum() + 0.3 * penalty).backward()
    found = {"output": y, "penalty": penalty} | {name: p.grad for name, p in model.named_parameters()}
    if x.is_floating_point():
        found["input"] = x.grad
    return {name: t.detach().cpu() for name, t in found.items() if t is not None}


def compare(model, x, device, training):
    """The device's step against the CPU's; torch's own products decide how far they may be apart."""
    ours, cpu, truth = (
        step(model, x, where, dtype, training)
        for where, dtype in ((device, torch.float32), ("cpu", torch.float32), ("cpu", torch.float64))
    )
    assert set(ours) == set(cpu)
    for name in ours:
        assert_as_good_as_torch(ours[name], cpu[name], truth[name], name, factor=20.0)


@pytest.mark.parametrize("case", ALL, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["sampled", "deterministic"])
def test_every_layer(device, fixed_noise, case, training):
    compare(case.make(), case.input(), device, training)


@pytest.mark.parametrize("training", [True, False], ids=["sampled", "deterministic"])
def test_sparse_mlp(device, fixed_noise, training):
    compare(l0fast.SparseMLP(20, 30, 5), torch.randn(7, 20), device, training)


def test_layers_made_on_the_device(device):
    layer = l0fast.L0Conv2d(3, 4, 3, device=device)
    assert {p.device for p in layer.parameters()} == {device}
    layer(torch.randn(2, 3, 8, 8, device=device)).sum().backward()
    assert all(p.grad is not None and p.grad.device == device for p in layer.parameters())


def test_bfloat16_autocast(device, fixed_noise):
    """The product in bfloat16, gates and gradients of the parameters in float32."""
    layer, x = l0fast.L0Linear(300, 200).to(device), torch.randn(16, 300, device=device)
    exact = layer(x)
    (exact.square().mean() + 1e-3 * layer.get_l0_penalty()).backward()
    expected = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    with torch.autocast(device.type, torch.bfloat16):
        y = layer(x)
        penalty = layer.get_l0_penalty()
    assert y.dtype == torch.bfloat16 and penalty.dtype == torch.float32
    (y.float().square().mean() + 1e-3 * penalty).backward()
    assert (y - exact).norm() <= 2e-2 * exact.norm()
    for name, p in layer.named_parameters():
        assert p.grad.dtype == torch.float32
        assert (p.grad - expected[name]).norm() <= 3e-2 * expected[name].norm(), name


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(device, fixed_noise, backend):
    if backend == "inductor" and device.type == "cpu":
        pytest.skip("needs a real GPU: on a CPU tests/test_ecosystem.py has it")
    model = nn.Sequential(l0fast.L0Linear(20, 30), nn.ReLU(), l0fast.L0Linear(30, 5)).to(device)
    x = torch.randn(7, 20, device=device)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    results = []
    for function in (model, compiled):
        model.zero_grad()
        y = function(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_state_dict_goes_from_device_to_device(device, tmp_path):
    here, there = l0fast.SparseMLP(20, 30, 5).to(device), l0fast.SparseMLP(20, 30, 5)
    torch.save(here.state_dict(), tmp_path / "state.pt")
    there.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu"))
    x = torch.randn(7, 20)
    torch.testing.assert_close(here.eval()(x.to(device)).cpu(), there.eval()(x), rtol=1e-4, atol=1e-5)
    here.load_state_dict(there.state_dict())
    assert all(p.device == device for p in here.parameters())


def test_a_layer_moved_after_a_forward_pass(device):
    """The penalty of the old parameters' forward pass must not be handed out for the new ones."""
    layer = l0fast.L0Linear(20, 30)
    layer(torch.randn(4, 20))
    layer.to(device)
    penalty = layer.get_l0_penalty()
    assert penalty.device == device
    penalty.backward()
    assert layer.weight_gates.qz_logits.grad.device == device


def test_training_lowers_loss_and_penalty(device):
    torch.manual_seed(0)
    model = l0fast.SparseMLP(10, 40, 1).to(device)
    x = torch.randn(256, 10, device=device)
    y = x[:, :1] * 2 - x[:, 1:2]
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    history = []
    for _ in range(150):
        adam.zero_grad()
        loss = (model(x) - y).square().mean()
        (loss + 1e-3 * model.get_l0_loss()).backward()
        adam.step()
        history.append(loss.item())
    assert sum(history[-10:]) < 0.3 * sum(history[:10])
