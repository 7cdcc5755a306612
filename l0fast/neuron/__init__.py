"""Neuron-level L0 regularisation with the names and the meaning of the original authors' code (arXiv 1712.01312)."""

from .conv import L0Conv2d, MAPConv2d
from .dense import L0Dense, MAPDense
from .models import L0MLP, L0LeNet5
from .wide_resnet import L0WideResNet

__all__ = ["L0MLP", "L0Conv2d", "L0Dense", "L0LeNet5", "L0WideResNet", "MAPConv2d", "MAPDense"]
