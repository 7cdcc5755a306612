"""Gated networks for the tests of l0fast.pruning, with about half of the channels closed and nothing at its default."""

import torch
import torch.nn.functional as F
from torch import nn

import l0fast as l0
from l0fast.layers._base import GatedLayer


def shake(model: nn.Module, closed: float = 0.5, seed: int = 0) -> nn.Module:
    """Biases and statistics away from 0 and 1; each gate clearly open, half open or closed.

    One thread: on these sizes threads that wait for one another take most of the time. conftest resets it.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, GatedLayer):
                logits = module.gates.qz_logits
                draw = torch.rand(logits.shape, generator=generator)
                logits.copy_(torch.where(draw < closed, -6.0, torch.where(draw < (1 + closed) / 2, 0.3, 6.0)))
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.normal_(generator=generator)
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                module.bias.normal_(generator=generator)
    return model


def close(layer: GatedLayer, *gates: int) -> None:
    """Closes these gates of a structured layer and opens the others."""
    with torch.no_grad():
        layer.gates.qz_logits.fill_(6.0)
        layer.gates.qz_logits[list(gates)] = -6.0


def conv(inputs: int, outputs: int, kernel: int = 3, padding=1, **options) -> l0.L0Conv2d:
    return l0.L0Conv2d(inputs, outputs, kernel, padding=padding, structured=True, **options)


class Plain(nn.Module):
    """Convolutions with batch norm and without, pooling, flatten, linear layers."""

    def __init__(self, **options):
        super().__init__()
        self.c1, self.n1 = conv(3, 12, **options), nn.BatchNorm2d(12)
        self.c2 = conv(12, 16, stride=2, **options)
        self.c3, self.n3 = conv(16, 10, padding=0, **options), nn.BatchNorm2d(10)
        self.act = nn.ReLU(inplace=True)
        self.f1 = l0.L0Linear(10 * 4, 20, gate_dim=0)
        self.f2 = l0.L0Linear(20, 7)

    def forward(self, x):
        x = F.max_pool2d(self.act(self.n1(self.c1(x))), 2)
        x = F.gelu(self.c2(x))
        x = self.act(self.n3(self.c3(x)))
        x = F.adaptive_avg_pool2d(x, 2)
        return self.f2(self.act(self.f1(x.flatten(1))))


class Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.a, self.na = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)
        self.b, self.nb = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.nb(self.b(F.relu(self.na(self.a(x)))))
        y += x
        return F.relu(y, inplace=True)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = conv(3, 12), nn.BatchNorm2d(12)
        self.one, self.two = Block(12), Block(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.two(self.one(F.relu(self.norm(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class Concat(nn.Module):
    """A U-Net in small: concatenation, upsampling, transposed convolution, two outputs."""

    def __init__(self):
        super().__init__()
        self.down = conv(3, 8)
        self.deep = conv(8, 12)
        self.up = l0.L0ConvTranspose2d(12, 8, 2, stride=2, structured=True)
        self.merge = conv(16, 10)
        self.out, self.side = nn.Conv2d(10, 2, 1), nn.Linear(12, 3)

    def forward(self, x):
        a = torch.sigmoid(self.down(x))
        b = F.leaky_relu(self.deep(F.avg_pool2d(a, 2)))
        merged = F.silu(self.merge(torch.cat([a, self.up(b)], dim=1)))
        return {"mask": self.out(merged), "side": (self.side(b.amax((2, 3))),)}


class Mobile(nn.Module):
    """Inverted bottlenecks with gated depthwise filters and squeeze-and-excitation."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.expand, self.ne = conv(8, 24, 1, 0, bias=False), nn.BatchNorm2d(24)
        self.depth, self.nd = l0.L0DepthwiseConv2d(24, 3, padding=1), nn.BatchNorm2d(24)
        self.squeeze, self.excite = l0.L0Linear(24, 6, gate_dim=0), nn.Linear(6, 24)
        self.project = conv(24, 8, 1, 0)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu6(self.stem(x))
        y = F.relu6(self.ne(self.expand(x)))
        y = F.hardswish(self.nd(self.depth(y)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
        x = x + self.project(y * gate[:, :, None, None])
        return self.head(x.mean((-1, -2)))


class Text(nn.Module):
    """Embedding with gated features, linear layers over positions, an activation with a slope per channel."""

    def __init__(self):
        super().__init__()
        self.table = l0.L0Embedding(20, 12, padding_idx=0, gate_dim=1)
        self.inner, self.slope = l0.L0Linear(12, 16, gate_dim=0), nn.PReLU(16)
        self.conv = l0.L0Conv1d(16, 10, 3, padding=1, padding_mode="circular", structured=True)
        self.out = nn.Linear(10, 3)

    def forward(self, tokens):
        x = self.inner(self.table(tokens))
        x = self.conv(self.slope(x.transpose(1, 2)))
        return self.out(x.transpose(1, 2))


IMAGES = (3, 3, 16, 16)
NETWORKS = {
    "plain": (Plain, IMAGES),
    "plain, reflect": (lambda: Plain(padding_mode="reflect"), IMAGES),
    "plain, no bias": (lambda: Plain(bias=False), IMAGES),
    "residual": (Residual, IMAGES),
    "concat": (Concat, IMAGES),
    "mobile": (Mobile, IMAGES),
    "text": (Text, (3, 11)),
    "mlp": (lambda: l0.SparseMLP(16, 24, 5, init_sparsity=0.3), (3, 16)),
}


def network(name: str, seed: int = 0, closed: float = 0.5):
    """A shaken network in training mode, and a function that draws inputs of it."""
    torch.manual_seed(seed)
    make, shape = NETWORKS[name]
    model = shake(make(), closed, seed)
    return model, lambda: torch.randint(0, 20, shape) if name == "text" else torch.randn(shape)


def leaves(outputs) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def assert_same(outputs, expected, tolerance: float = 1e-5) -> None:
    """Largest difference within tolerance of the largest expected value (at least 1)."""
    outputs, expected = leaves(outputs), leaves(expected)
    assert len(outputs) == len(expected) > 0
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.shape == wanted.shape and output.dtype == wanted.dtype
        scale = max(1.0, wanted.abs().max().item())
        assert (output - wanted).abs().max().item() <= tolerance * scale
