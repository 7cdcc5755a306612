"""Layers with Hard Concrete gates on their weights: l0-python's, and the siblings that users expect."""

from ..distributions import HardConcrete as HardConcrete  # importable from here, as in l0-python
from .conv import L0Conv1d, L0Conv2d, L0Conv3d, L0ConvTranspose2d
from .depthwise import L0DepthwiseConv2d
from .linear import L0Embedding, L0Linear
from .mlp import SparseMLP
from .prune import prune_model

__all__ = [
    "L0Conv1d",
    "L0Conv2d",
    "L0Conv3d",
    "L0ConvTranspose2d",
    "L0DepthwiseConv2d",
    "L0Embedding",
    "L0Linear",
    "SparseMLP",
    "prune_model",
]
