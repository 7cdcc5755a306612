"""From gates to a model that is really smaller: prune, materialize, compact, store sparse."""

from ..layers.prune import prune_model
from .compact import CompactReport, compact
from .materialize import materialize

__all__ = ["CompactReport", "compact", "materialize", "prune_model"]
