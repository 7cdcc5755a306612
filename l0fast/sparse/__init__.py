"""L0-regularised linear regression on sparse data."""

from .linear import SparseL0Linear

__all__ = ["SparseL0Linear"]
