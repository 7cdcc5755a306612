"""Gates that stand alone and choose samples or features: the classes of l0-python's l0.gates."""

from ..distributions import HardConcrete as HardConcrete  # importable from here, as in l0-python
from .base import L0Gate
from .selection import FeatureGate, HybridGate, SampleGate

__all__ = ["FeatureGate", "HybridGate", "L0Gate", "SampleGate"]
