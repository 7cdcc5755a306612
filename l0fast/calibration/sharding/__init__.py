"""A calibration whose records lie in many processes: each holds the columns of its own, only totals travel."""

from .bounds import Shard, shard_bounds
from .errors import PeerError, ProcessLostError
from .weights import gathered_weights

__all__ = ["PeerError", "ProcessLostError", "Shard", "gathered_weights", "shard_bounds"]
