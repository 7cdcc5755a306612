"""The penalty of a whole model and its layers' backward passes: orders of calls, shared gates, substituted tensors."""

import copy

import pytest
import torch
from gated_layers import SEED, fix_noise, gates_of, scatter
from torch import nn
from torch.func import functional_call

from l0fast import L0Conv2d, L0Linear, compute_l0_penalty, penalties, reference


class Net(nn.Module):
    """Four kinds of layers: a convolution, channels, a large and a small linear layer, and a second temperature."""

    def __init__(self):
        super().__init__()
        self.conv = L0Conv2d(2, 4, 3, temperature=0.8)
        self.channels = L0Conv2d(4, 8, 3, structured=True)
        self.large = L0Linear(8 * 64, 512)
        self.small = L0Linear(512, 3, gate_dim=0)

    def forward(self, x):
        h = self.channels(torch.tanh(self.conv(x))).flatten(1)
        return self.small(torch.tanh(self.large(h)))


class PlainNet(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, x):
        n = self.net
        v = [m.weight * m.spread(gates_of(m, SEED if self.training else None)) for m in n.children()]
        h = nn.functional.conv2d(torch.tanh(nn.functional.conv2d(x, v[0], n.conv.bias)), v[1], n.channels.bias)
        return nn.functional.linear(
            torch.tanh(nn.functional.linear(h.flatten(1), v[2], n.large.bias)), v[3], n.small.bias
        )


def penalty(model):
    if not isinstance(model, PlainNet):
        return compute_l0_penalty(model)
    return sum(
        reference.l0_penalty(m.gates.qz_logits, temperature=m.gates.temperature, gamma=m.gates.gamma, zeta=m.gates.zeta)
        for m in model.net.children()
    )


@pytest.fixture
def both(monkeypatch):
    fix_noise(monkeypatch)
    net = scatter(Net()).double()
    return net, PlainNet(net), torch.randn(3, 2, 12, 12, dtype=torch.float64)


def loss(y):
    return (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum()


def assert_same(model, plain):
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            scale = max(1.0, b.grad.abs().max().item())
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-8 * scale, msg=lambda m, n=name: f"{n}: {m}")


def before(m, x):
    p = penalty(m)
    (loss(m(x)) + p).backward()


def after(m, x):
    (loss(m(x)) + penalty(m)).backward()


def twice(m, x):
    (loss(m(x)) + penalty(m) + penalty(m).square() / 1e5).backward()


def after_backward(m, x):
    loss(m(x)).backward()
    penalty(m).backward()


def penalty_first(m, x):
    y, p = m(x), penalty(m)
    p.backward()
    loss(y).backward()


def retained(m, x):
    total = loss(m(x)) + penalty(m)
    total.backward(retain_graph=True)
    total.backward()


def some_layers_only(m, x):
    """One layer has been used since the last step, the others not."""
    net = m.net if isinstance(m, PlainNet) else m
    after(m, x)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.9)
            p.grad = None
    net.conv(x)
    penalty(m).backward()


def without_gradient(m, x):
    y = m(x)
    with torch.no_grad():
        assert not penalty(m).requires_grad
    (loss(y) + penalty(m)).backward()


def temperatures(m, x):
    penalties.update_temperatures(m, 0.4)
    y = m(x)
    penalties.update_temperatures(m, 0.2)
    (loss(y) + penalty(m)).backward()


def frozen_layer(m, x):
    net = m.net if isinstance(m, PlainNet) else m
    net.large.requires_grad_(False)
    (loss(m(x)) + penalty(m)).backward()


def after_a_step(m, x):
    net = m.net if isinstance(m, PlainNet) else m
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        (loss(m(x)) + penalty(m)).backward()
        optimizer.step()
    optimizer.zero_grad()
    penalty(m).backward()


ORDERS = [
    *(before, after, twice, after_backward, penalty_first, retained, some_layers_only, without_gradient),
    *(temperatures, frozen_layer, after_a_step),
]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda f: f.__name__)
def test_any_order(both, order, training):
    net, plain, x = both
    for m in (net.train(training), plain.train(training)):
        order(m, x)
    assert_same(net, plain)
    torch.testing.assert_close(penalty(net), penalty(plain), rtol=1e-12, atol=0)


def test_layers_that_share_gates_or_weights(monkeypatch):
    """The penalty of shared gates counts for each layer, and its gradient reaches them once for each."""
    fix_noise(monkeypatch)
    results = []
    for plain in (False, True):
        a, b = (scatter(L0Linear(520, 520)).double() for _ in range(2))
        b.weight_gates = a.weight_gates
        c = L0Linear(520, 520).double()
        c.weight = a.weight
        model, x = nn.Sequential(a, b, scatter(c)), torch.linspace(-1, 1, 520, dtype=torch.float64).expand(2, 520)
        scatter(model)
        with torch.no_grad():
            for k, p in enumerate((a.weight, b.weight)):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(k)) / 20)
        if plain:
            y = x
            for m in model:
                y = nn.functional.linear(y, m.weight * gates_of(m, SEED), m.bias)
            p = sum(reference.l0_penalty(m.gates.qz_logits, temperature=0.5) for m in model)
        else:
            y, p = model(x), compute_l0_penalty(model)
        (loss(y) + 0.1 * p).backward()
        results.append([q.grad for q in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_functional_call_with_other_tensors(both):
    """Neither the module's own parameters nor what an earlier forward left behind take part."""
    net, plain, x = both
    net(x)
    other = {name: (p.detach() * 1.1).requires_grad_() for name, p in net.named_parameters()}
    y = functional_call(net, other, (x,))
    (loss(y) + compute_l0_penalty(net)).backward()
    with torch.no_grad():
        for p in plain.parameters():
            p.mul_(1.1)
    loss(plain(x)).backward()
    for (name, p), q in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(other[name].grad, q.grad, rtol=1e-6, atol=1e-8)
        assert (p.grad is not None) == name.endswith("qz_logits")

    class WithPenalty(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return loss(self.net(x)) + compute_l0_penalty(self.net)

    net.zero_grad()
    model = WithPenalty()
    grads = torch.func.grad(lambda p: functional_call(model, p, (x,)))({f"net.{k}": v for k, v in other.items()})
    plain.zero_grad()
    (loss(plain(x)) + penalty(plain)).backward()
    for (name, _), q in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(grads[f"net.{name}"].detach(), q.grad, rtol=1e-6, atol=1e-8)
    assert all(p.grad is None for p in net.parameters())
