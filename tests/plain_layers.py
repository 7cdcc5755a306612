"""A gated layer and the same composed of torch's own ops, for tests of the order of calls."""

import copy

import torch
from gated_layers import SEED, gates_of
from torch import nn

from l0fast import L0Conv2d, L0DepthwiseConv2d, L0Linear, reference

KINDS = {
    "small": (lambda: L0Linear(6, 5), (3, 6)),
    "large": (lambda: L0Linear(512, 520), (3, 512)),
    "rows": (lambda: L0Linear(512, 520, gate_dim=0), (3, 512)),
    "conv": (lambda: L0Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "channels": (lambda: L0Conv2d(3, 4, 3, structured=True), (2, 3, 6, 6)),
    "depthwise": (lambda: L0DepthwiseConv2d(3, 3), (2, 3, 6, 6)),
}


class Plain(nn.Module):
    """The same layer as a composition of torch's own ops, on the same parameters' values and the same noise."""

    def __init__(self, layer):
        super().__init__()
        self.layer = copy.deepcopy(layer)

    def forward(self, x):
        layer = self.layer
        v = layer.weight * layer.spread(gates_of(layer, SEED if self.training else None))
        if x.dim() == 2:
            return nn.functional.linear(x, v, layer.bias)
        return nn.functional.conv2d(x, v, layer.bias, groups=x.shape[1] // v.shape[1])

    def get_l0_penalty(self):
        gates = self.layer.gates
        shape = {"temperature": gates.temperature, "gamma": gates.gamma, "zeta": gates.zeta}
        return reference.l0_penalty(gates.qz_logits, **shape)

    @property
    def gates(self):
        return self.layer.gates


def loss(y):
    return (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum()


def parameters(module):
    inner = module.layer if isinstance(module, Plain) else module
    return list(inner.parameters())


def weight_of(module):
    return (module.layer if isinstance(module, Plain) else module).weight


TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}


def assert_same(layer, plain, what="gradient"):
    for a, b in zip(parameters(layer), parameters(plain), strict=True):
        assert (a.grad is None) == (b.grad is None), what
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=TOLERANCE[a.dtype], msg=lambda m: f"{what}: {m}")


def together(m, x):
    (loss(m(x)) + 0.3 * m.get_l0_penalty()).backward()
