"""L0 gates on activities and by a functional regulariser: the interface of TensorFlow's l0_layer and l0_dense."""

from .activation import L0Activation
from .dense import L0Dense
from .regularizer import TensorRegularizer, collect_regularization_losses, l0_regularizer

__all__ = ["L0Activation", "L0Dense", "TensorRegularizer", "collect_regularization_losses", "l0_regularizer"]
