"""LeNet-300-100 and LeNet-5-Caffe with neuron-level gates, as in the paper's table 1."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import constants as c
from .._checks import as_size, as_sizes
from ._base import NeuronGatedLayer, not_negative
from .averaging import AveragedParameters
from .conv import L0Conv2d
from .dense import L0Dense

INPUT_DROPRATE = 0.2
"""Initial drop rate of the gates on an MLP's inputs; all others start at 0.5."""


class GatedModel(AveragedParameters):
    """What the models share: the penalty of all layers, their counts and the averages.

    Args:
        N: number of training examples: the penalties are per example, as the mean loss is.
        beta_ema: see :class:`AveragedParameters`.
        weight_decay: L2 per example: the layers' precision is ``N * weight_decay``.

    Attributes:
        layers: the list of all layers that have a ``regularization()``.
    """

    def __init__(self, N: int, beta_ema: float, weight_decay: float):
        super().__init__(beta_ema)
        self.N = as_size("N", N)
        self.weight_decay = self.N * not_negative("weight_decay", weight_decay)

    @property
    def layers(self) -> list[nn.Module]:
        return [module for module in self.modules() if hasattr(module, "regularization") and module is not self]

    def regularization(self) -> Tensor:
        """What to add to the mean loss: ``-1/N`` times the log priors of all layers, at least 0."""
        return -sum(layer.regularization() for layer in self.layers) / self.N

    def constrain_parameters(self) -> None:
        """Holds the gates of all layers to their range, in place: to be called after each optimizer step."""
        for layer in self.layers:
            layer.constrain_parameters()

    def get_exp_flops_l0(self) -> tuple[float, float]:
        """Expected operations for one example and expected number of parameters that are not 0, of all layers."""
        counts = [layer.count_expected_flops_and_l0() for layer in self.layers]
        return sum(flops for flops, _ in counts), sum(l0 for _, l0 in counts)

    @torch.no_grad()
    def architecture(self) -> list[int]:
        """How many gates of each gated layer are open in evaluation: the paper's "pruned architecture"."""
        gated = [layer for layer in self.layers if isinstance(layer, NeuronGatedLayer)]
        return [int((layer.test_gates() > 0).sum()) for layer in gated]


class L0MLP(GatedModel):
    """A multilayer perceptron with a gate for each input and each hidden unit; ReLU between the layers.

    Args:
        input_dim, num_classes, layer_dims: sizes of the input, the output and the hidden layers.
        N, beta_ema, weight_decay: see :class:`GatedModel`.
        lambas: price of a weight, one for each layer or one for all; ``regularization()`` divides it by N.
        local_rep, temperature: as in :class:`L0Dense`.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 4.1; LeNet-300-100 with the defaults.
    """

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        layer_dims: Sequence[int] = (300, 100),
        N: int = 50000,
        beta_ema: float = 0.999,
        weight_decay: float = 1,
        lambas: Sequence[float] = (1.0, 1.0, 1.0),
        local_rep: bool = False,
        temperature: float = c.BETA,
    ):
        super().__init__(N, beta_ema, weight_decay)
        self.layer_dims = as_sizes("layer_dims", layer_dims, len(layer_dims))
        self.input_dim = as_size("input_dim", input_dim)
        sizes = [self.input_dim, *self.layer_dims, as_size("num_classes", num_classes)]
        self.lambas = checked_lambas(lambas, len(sizes) - 1)
        modules: list[nn.Module] = []
        for k, lamba in enumerate(self.lambas):
            droprate = INPUT_DROPRATE if k == 0 else 0.5
            shared = {"weight_decay": self.weight_decay, "temperature": temperature, "local_rep": local_rep}
            modules += [L0Dense(sizes[k], sizes[k + 1], droprate_init=droprate, lamba=lamba, **shared), nn.ReLU()]
        self.output = nn.Sequential(*modules[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, num_classes] from x [batch, input_dim]."""
        return self.output(x)


class L0LeNet5(GatedModel):
    """LeNet-5-Caffe with a gate for each map of the convolutions and each input of the dense layers.

    Args:
        num_classes: number of outputs.
        input_size: (channels, height, width) of an image, at least 16 x 16.
        conv_dims: maps of the two convolutions. fc_dims: units of the hidden dense layer.
        N, beta_ema, weight_decay: see :class:`GatedModel`.
        lambas: price of a weight, one for each of the four layers or one for all; ``regularization()`` divides it by N.
        local_rep, temperature: as in :class:`L0Dense`.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 4.1.
    """

    def __init__(
        self,
        num_classes: int,
        input_size: Sequence[int] = (1, 28, 28),
        conv_dims: Sequence[int] = (20, 50),
        fc_dims: int = 500,
        N: int = 50000,
        beta_ema: float = 0.999,
        weight_decay: float = 1,
        lambas: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        local_rep: bool = False,
        temperature: float = c.BETA,
    ):
        super().__init__(N, beta_ema, weight_decay)
        channels, height, width = as_sizes("input_size", input_size, 3)
        if min(height, width) < 16:
            raise ValueError(f"input_size: expected at least 16 x 16 pixels, got {height} x {width}")
        first, second = as_sizes("conv_dims", conv_dims, 2)
        self.lambas = checked_lambas(lambas, 4)
        priors = [
            {"lamba": lamba, "weight_decay": self.weight_decay, "temperature": temperature, "local_rep": local_rep}
            for lamba in self.lambas
        ]
        # Pooled before the ReLU: the same numbers for a quarter of its work. The keys of the state_dict stay.
        self.convs = nn.Sequential(
            *(L0Conv2d(channels, first, 5, **priors[0]), nn.MaxPool2d(2), nn.ReLU()),
            *(L0Conv2d(first, second, 5, **priors[1]), nn.MaxPool2d(2), nn.ReLU()),
        )
        places = self._places((height, width))
        self.fcs = nn.Sequential(
            L0Dense(second * places, as_size("fc_dims", fc_dims), **priors[2]),
            nn.ReLU(),
            L0Dense(fc_dims, as_size("num_classes", num_classes), **priors[3]),
        )

    def _places(self, size: tuple[int, int]) -> int:
        """Pixels of a map after both convolutions; tells these their inputs' shapes, which the counts need."""
        height, width = size
        for conv in (self.convs[0], self.convs[3]):
            conv.input_shape = (conv.in_channels, height, width)
            height, width = (height - 4) // 2, (width - 4) // 2
        return height * width

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, num_classes] from images x [batch, channels, height, width]."""
        return self.fcs(self.convs(x).flatten(1))


def checked_lambas(lambas: Sequence[float], count: int) -> list[float]:
    """A price for each layer, from as many or, where all are the same, from any number of them."""
    values = [not_negative(f"lambas[{k}]", value) for k, value in enumerate(lambas)]
    if len(set(values)) == 1:  # so that the default serves any depth
        return values[:1] * count
    if len(values) != count:
        raise ValueError(f"lambas: expected {count} numbers, one for each layer, or one for all, got {len(values)}")
    return values
