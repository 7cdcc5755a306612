"""From gates to a model that is really smaller: prune, materialize, compact, store sparse."""

from ..layers.prune import prune_model
from .compact import CompactReport, compact
from .materialize import materialize
from .sparse_linear import SparseLinear
from .to_sparse import SparseChoice, to_sparse

__all__ = ["CompactReport", "SparseChoice", "SparseLinear", "compact", "materialize", "prune_model", "to_sparse"]
