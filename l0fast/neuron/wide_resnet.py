"""Wide residual networks with a gate for each map between the two convolutions of a block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import constants as c
from .._checks import as_size
from ._base import checked_droprate, not_negative
from .conv import L0Conv2d, MAPConv2d
from .dense import MAPDense
from .models import GatedModel

FIRST_MAPS = 16


class BasicBlock(nn.Module):
    """``x + conv2(relu(bn2(conv1(relu(bn1(x))))))``, conv1 gated; a 1 x 1 convolution of x where the sizes differ."""

    def __init__(self, in_planes: int, out_planes: int, stride: int, droprate_init: float, plain: dict, gated: dict):
        super().__init__()
        geometry = {"kernel_size": 3, "padding": 1, "bias": False}
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = L0Conv2d(in_planes, out_planes, stride=stride, droprate_init=droprate_init, **geometry, **gated)
        self.bn2 = nn.BatchNorm2d(out_planes)
        self.conv2 = MAPConv2d(out_planes, out_planes, **geometry, **plain)
        same = in_planes == out_planes
        shortcut = None if same else MAPConv2d(in_planes, out_planes, 1, stride=stride, bias=False, **plain)
        self.convShortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """y [batch, out_planes, ...] from x [batch, in_planes, ...]."""
        entry = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(entry))))
        return out + (x if self.convShortcut is None else self.convShortcut(entry))


class NetworkBlock(nn.Module):
    """``count`` blocks in a row, the first with the stride and the change of size."""

    def __init__(self, count: int, in_planes: int, out_planes: int, stride: int, **options):
        super().__init__()
        sizes = [(in_planes, stride)] + [(out_planes, 1)] * (count - 1)
        self.layer = nn.Sequential(*(BasicBlock(size, out_planes, step, **options) for size, step in sizes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class L0WideResNet(GatedModel):
    """A wide residual network, depth 28 and width 10 by default, whose blocks lose maps while they learn.

    The first convolution of each block is gated. Everything else has weight decay alone, the batch norms included.

    Args:
        depth: 6 n + 4, n blocks in each of three groups. widen_factor: maps are 16, 32 and 64 times as many.
        num_classes: number of outputs.
        droprate_init, local_rep, lamba, temperature: of the gated convolutions, as in :class:`L0Conv2d`.
        N, beta_ema, weight_decay: see :class:`GatedModel`. The gated convolutions' decay is divided by 0.7, as in the
            original code, since closed gates weaken it.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 4.2; Zagoruyko and Komodakis 2016.
    """

    def __init__(
        self,
        depth: int = 28,
        num_classes: int = 10,
        widen_factor: int = 10,
        droprate_init: float = 0.3,
        N: int = 50000,
        beta_ema: float = 0.99,
        weight_decay: float = 5e-4,
        local_rep: bool = False,
        lamba: float = 0.01,
        temperature: float = c.BETA,
    ):
        super().__init__(N, beta_ema, weight_decay)
        if as_size("depth", depth) < 10 or (depth - 4) % 6:
            raise ValueError(f"depth: expected 6 n + 4 with n of at least 1, got {depth}")
        blocks, widen = (depth - 4) // 6, as_size("widen_factor", widen_factor)
        sizes = [FIRST_MAPS, *(factor * FIRST_MAPS * widen for factor in (1, 2, 4))]
        plain = {"weight_decay": self.weight_decay}
        gated = {"lamba": not_negative("lamba", lamba), "temperature": temperature, "local_rep": local_rep}
        gated["weight_decay"] = self.weight_decay / 0.7
        options = {"droprate_init": checked_droprate("droprate_init", droprate_init), "plain": plain, "gated": gated}
        self.conv1 = MAPConv2d(3, sizes[0], 3, padding=1, bias=False, **plain)
        self.block1 = NetworkBlock(blocks, sizes[0], sizes[1], 1, **options)
        self.block2 = NetworkBlock(blocks, sizes[1], sizes[2], 2, **options)
        self.block3 = NetworkBlock(blocks, sizes[2], sizes[3], 2, **options)
        self.bn = nn.BatchNorm2d(sizes[3])
        self.fcout = MAPDense(sizes[3], as_size("num_classes", num_classes), **plain)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, num_classes] from images x [batch, 3, height, width], of at least 4 x 4 pixels."""
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        out = F.adaptive_avg_pool2d(F.relu(self.bn(out)), 1).flatten(1)
        return self.fcout(out)

    def regularization(self) -> Tensor:
        """That of the layers, and ``weight_decay / 2`` times the squares of the batch norms' parameters."""
        norms = [p.square().sum() for m in self.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
        return super().regularization() + 0.5 * self.weight_decay / self.N * torch.stack(norms).sum()
