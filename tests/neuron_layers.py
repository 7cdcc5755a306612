"""What the neuron-level layers must compute, in plain torch and float64, written out from the paper's formulas."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from l0fast import reference
from l0fast.neuron import L0Conv2d, L0Dense

SEED = torch.tensor([2])  # in every case: gates at 0, at 1 and between
LAYERS = {
    "dense": (lambda **o: L0Dense(5, 4, **o), (6, 5)),
    "dense, no bias": (lambda **o: L0Dense(5, 4, bias=False, **o), (6, 5)),
    "dense, cold": (lambda **o: L0Dense(5, 4, temperature=0.4, lamba=0.3, weight_decay=2.5, **o), (6, 5)),
    "conv": (lambda **o: L0Conv2d(2, 6, 3, **o), (3, 2, 7, 6)),
    "conv, no bias": (lambda **o: L0Conv2d(2, 6, (3, 2), bias=False, temperature=0.9, **o), (3, 2, 7, 6)),
    "conv, geometry": (
        lambda **o: L0Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, lamba=0.2, **o),
        (3, 4, 9, 8),
    ),
}


def make(name: str, dtype=torch.float64, **options):
    """The layer with gates on both sides, a bias that is not 0, and noise from SEED; and an input."""
    build, shape = LAYERS[name]
    layer = build(**options).to(dtype)
    layer._draw_seed = lambda: SEED
    with torch.no_grad():
        layer.qz_loga.copy_(torch.linspace(-3, 3, len(layer.qz_loga)))
        if layer.bias is not None:
            layer.bias.normal_()
    return layer, torch.randn(shape, dtype=dtype)


def plain_gates(layer, batch: int | None) -> Tensor:
    """z of equations 10 and 11 from the noise of SEED: [gates], or with a batch [batch, gates]; or without noise."""
    log_alpha = layer.qz_loga
    if not layer.training:
        return (1.2 * torch.sigmoid(log_alpha) - 0.1).clamp(0, 1)
    count = len(log_alpha) * (batch or 1)
    u = reference.uniform_at(SEED, 0, 0, count, torch.float64).to(log_alpha.dtype)
    u = u.view(-1, len(log_alpha)) if batch else u
    s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_alpha) / layer.temperature)
    return (1.2 * s - 0.1).clamp(0, 1)


def plain_forward(layer, x: Tensor) -> Tensor:
    """A closed input of a dense layer is 0; a closed map of a convolution is 0, its bias included."""
    z = plain_gates(layer, len(x) if layer.local_rep and layer.training else None).expand(len(x), -1)
    if isinstance(layer, L0Dense):
        y = (x * z) @ layer.weights
        return y if layer.bias is None else y + layer.bias
    y = F.conv2d(x, layer.weights, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return y * z[:, :, None, None]


def plain_probability(layer) -> Tensor:
    """Equation 12."""
    return torch.sigmoid(layer.qz_loga - layer.temperature * math.log(0.1 / 1.1))


def plain_cost(layer) -> Tensor:
    """What ``regularization()`` is minus of, weight by weight."""
    total = torch.zeros((), dtype=layer.weights.dtype)
    for g, p in enumerate(plain_probability(layer)):
        group = list(layer.weights[g].flatten())
        if isinstance(layer, L0Conv2d) and layer.bias is not None:
            group.append(layer.bias[g])
        for w in group:
            total = total + p * (0.5 * layer.prior_prec * w**2 + layer.lamba)
    if isinstance(layer, L0Dense) and layer.bias is not None:
        total = total + 0.5 * layer.prior_prec * (layer.bias**2).sum()
    return total
