"""Gated layers in training loops: checkpointing and a hundred steps of an optimizer."""

import pytest
import torch
from gated_layers import SEED, fix_noise, scatter
from plain_layers import KINDS, Plain, loss, parameters
from torch import nn
from torch.utils.checkpoint import checkpoint

from l0fast import L0Linear, compute_l0_penalty


@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing(kind, reentrant):
    """The same gradients as without: what is computed again draws the same noise, whatever is drawn in between."""
    make, shape = KINDS[kind]
    layer, x = scatter(make()), torch.randn(shape)
    results = []
    for wrap in (False, True):
        torch.manual_seed(3)
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        y = checkpoint(layer, leaf, use_reentrant=reentrant) if wrap else layer(leaf)
        torch.rand(5)
        (loss(y) + layer.get_l0_penalty()).backward()
        layer.get_l0_penalty().backward()
        results.append([y.detach(), leaf.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_checkpointing_a_block():
    """Two draws in one block are restored in their order."""
    block = nn.Sequential(scatter(L0Linear(6, 6)), nn.Tanh(), scatter(L0Linear(6, 6)))
    x = torch.randn(2, 6, requires_grad=True)
    results = []
    for wrap in (False, True):
        torch.manual_seed(3)
        y = checkpoint(block, x, use_reentrant=False) if wrap else block(x)
        results.append(torch.autograd.grad(y.sum() + compute_l0_penalty(block), [x, *block.parameters()]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_steps(monkeypatch, kind, optimizer):
    """Parameters and optimizer states equal those of the plain composition, with new noise at each step."""
    make, shape = KINDS[kind]
    steps = 100 if kind in ("small", "conv") else 12  # plain torch draws a quarter of a million numbers slowly
    layer = scatter(make()).double()
    plain = Plain(layer)
    xs = torch.randn(steps, *shape, dtype=torch.float64)
    optimizers = [optimizer(parameters(m), lr=0.02) for m in (layer, plain)]
    for k in range(steps):
        seed = SEED + k
        fix_noise(monkeypatch, seed)
        monkeypatch.setattr("plain_layers.SEED", seed)
        for m, o in zip((layer, plain), optimizers, strict=True):
            o.zero_grad()
            (loss(m(xs[k])) + 0.05 * m.get_l0_penalty()).backward()
            o.step()
            m.gates.temperature = 0.5 * 0.98**k
    for a, b in zip(parameters(layer), parameters(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
        assert not torch.equal(a, torch.zeros_like(a))
    for s, t in zip(optimizers[0].state.values(), optimizers[1].state.values(), strict=True):
        for key in t:
            if isinstance(t[key], torch.Tensor):
                torch.testing.assert_close(s[key], t[key], rtol=1e-5, atol=1e-8)
