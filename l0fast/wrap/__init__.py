"""Gates on the parameters of any module."""

from .regularizer import L0Regularizer

__all__ = ["L0Regularizer"]
