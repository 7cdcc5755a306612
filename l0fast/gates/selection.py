"""Gates that stand alone and choose samples or features: the classes of l0-python's l0.gates."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import as_probability, as_real, as_size
from .._modules import unchanged
from .base import L0Gate, above, check_items
from .seeded import reseeded, sampled_gates

WEIGHT_FLOOR = 1e-8
"""A gated weight counts as selected above it."""


class SampleGate(L0Gate):
    """Gates on samples (the first dimension), that begin open with probability ``target_samples / n_samples``.

    Args:
        n_samples: number of samples.
        target_samples: how many to aim for, in [0, n_samples]; it sets the start only.
        temperature, eval_temperature, device, dtype: as in :class:`L0Gate`.

    Attributes:
        n_samples, target_samples: as above, with those of :class:`L0Gate`.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    def __init__(
        self,
        n_samples: int,
        target_samples: int,
        temperature: float = 0.25,
        *,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        if not 0 <= as_real("target_samples", target_samples) <= as_size("n_samples", n_samples):
            raise ValueError(f"target_samples: expected 0 to n_samples = {n_samples}, got {target_samples}")
        placed = {"eval_temperature": eval_temperature, "device": device, "dtype": dtype}
        super().__init__(n_samples, temperature, target_samples / n_samples, **placed)
        self.n_samples = n_samples
        self.target_samples = target_samples

    def select_samples(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """(data [k, ...], indices [k]) of the samples whose gate is above 1/2, from data [n_samples, ...].

        Raises:
            TypeError, ValueError: data has another number of samples or lies on another device.
        """
        self._check_items("data", data, 0)
        indices = self.get_active_indices()
        return data[indices], indices

    def select_weighted_samples(self, data: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(data [k, ...], weights * z [k], indices [k]) of the samples whose gated weight is above 1e-8.

        Args:
            data: [n_samples, ...].
            weights: [n_samples]. A sample of negative weight is never selected, as in l0-python.

        Returns:
            The gated weights are differentiable in the weights and in the gates.

        Raises:
            TypeError, ValueError: data or weights has another shape or lies on another device; a weight is NaN.
        """
        self._check_items("data", data, 0)
        self._check_items("weights", weights, 0)
        if weights.dim() != 1:
            raise ValueError(f"weights: expected shape [{self.size}], got {list(weights.shape)}")
        if weights.isnan().any():
            raise ValueError(f"weights: expected numbers, got NaN at {int(weights.isnan().nonzero()[0])}")
        gated_weights = weights * self.get_gates()
        indices = (gated_weights > WEIGHT_FLOOR).nonzero()[:, 0]
        return data[indices], gated_weights[indices], indices


class FeatureGate(L0Gate):
    """Gates on features (the last dimension), that begin open with probability ``max_features / n_features``.

    Args:
        n_features: number of features.
        max_features: how many to aim for, at least 0; it sets the start only, at a probability of 0.99 at the most.
        temperature, eval_temperature, device, dtype: as in :class:`L0Gate`.

    Attributes:
        n_features, max_features: as above, with those of :class:`L0Gate`.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    def __init__(
        self,
        n_features: int,
        max_features: int,
        temperature: float = 0.1,
        *,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        as_size("n_features", n_features)
        if not as_real("max_features", max_features) >= 0:
            raise ValueError(f"max_features: expected at least 0, got {max_features}")
        placed = {"eval_temperature": eval_temperature, "device": device, "dtype": dtype}
        super().__init__(n_features, temperature, min(max_features / n_features, 0.99), **placed)
        self.n_features = n_features
        self.max_features = max_features

    def select_features(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """(data [..., k], indices [k]) of the features whose gate is above 1/2, from data [..., n_features].

        Raises:
            TypeError, ValueError: data has another number of features or lies on another device.
        """
        self._check_items("data", data, -1)
        indices = self.get_active_indices()
        return data[..., indices], indices

    def select_features_with_names(self, data: Tensor, feature_names: Sequence[str]) -> tuple[Tensor, list[str]]:
        """(data [..., k], names) of the features whose gate is above 1/2, from data [..., n_features] and all names.

        Raises:
            TypeError, ValueError: as :meth:`select_features`, or there are not n_features names.
        """
        if isinstance(feature_names, str):
            raise TypeError(f"feature_names: expected a list of names, got the string {feature_names!r}")
        if len(feature_names) != self.n_features:
            raise ValueError(f"feature_names: expected {self.n_features} names, got {len(feature_names)}")
        selected, indices = self.select_features(data)
        return selected, [feature_names[i] for i in indices.tolist()]

    @torch.no_grad()
    def get_feature_importance(self) -> Tensor:
        """P(z != 0) of each feature, [n_features], in (0, 1)."""
        return self.gates.get_active_prob()


class HybridGate(nn.Module):
    """Chooses items in two ways: by L0 gates, and at random among the rest.

    Args:
        n_items: number of items.
        l0_fraction, random_fraction: shares of ``target_items`` for either way, in [0, 1], together at most 1.
        target_items: how many to choose in all, at most n_items; None or 0 for a fifth of them.
        temperature, eval_temperature, device, dtype: as in :class:`L0Gate`.

    Attributes:
        n_l0, n_random: ``int(target_items * l0_fraction)`` and ``int(target_items * random_fraction)``.
        l0_gate: :class:`SampleGate` of n_l0 of n_items; the state_dict has ``l0_gate.gates.qz_logits``.
        n_items, l0_fraction, random_fraction, target_items: as above.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    def __init__(
        self,
        n_items: int,
        l0_fraction: float = 0.25,
        random_fraction: float = 0.75,
        target_items: int | None = None,
        temperature: float = 0.25,
        *,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.n_items = as_size("n_items", n_items)
        self.l0_fraction = as_probability("l0_fraction", l0_fraction)
        self.random_fraction = as_probability("random_fraction", random_fraction)
        if self.l0_fraction + self.random_fraction > 1 + 1e-9:  # 0.7 + 0.3 and the like may round up
            raise ValueError(
                f"l0_fraction + random_fraction: expected at most 1, got {l0_fraction} + {random_fraction}"
            )
        if target_items is not None and not 0 <= as_real("target_items", target_items) <= n_items:
            raise ValueError(f"target_items: expected 0 to n_items = {n_items}, got {target_items}")
        self.target_items = target_items or int(n_items * 0.2)
        self.n_l0 = int(self.target_items * l0_fraction)
        self.n_random = int(self.target_items * random_fraction)
        placed = {"eval_temperature": eval_temperature, "device": device, "dtype": dtype}
        self.l0_gate = SampleGate(n_items, self.n_l0, temperature, **placed)

    @torch.no_grad()
    def _l0_indices(self, generator: torch.Generator | None) -> Tensor:
        gate = self.l0_gate
        if generator is None:
            return gate.get_active_indices()
        if isinstance(gate, L0Gate) and unchanged(gate, L0Gate, "get_active_indices", "get_gates"):
            return above(sampled_gates(gate.gates, generator), 0.5)
        with reseeded(generator, {p.device for p in gate.parameters()}):
            return gate.get_active_indices()

    def select(self, data: Tensor, random_seed: int | None = None) -> tuple[Tensor, Tensor, np.ndarray]:
        """Chooses the items whose gate is above 1/2, and n_random (or as many as there are) of the others at random.

        Args:
            data: [n_items, ...], on the device of the gates.
            random_seed: the same number gives the same choice at every call and on every device, in training too;
                torch's global generator is neither read nor changed then. None: the global generator decides.

        Returns:
            (data [k, ...], indices [k] int64 in ascending order, kinds [k]: a NumPy array of "l0" and "random").

        Raises:
            TypeError, ValueError: data has another number of items or lies on another device; random_seed is no int
                that torch.Generator takes.
        """
        device = next(self.l0_gate.parameters()).device
        check_items("data", data, 0, self.n_items, device)
        generator = None if random_seed is None else _generator(random_seed)
        by_gate = torch.zeros(self.n_items, dtype=torch.bool, device=device)
        by_gate[self._l0_indices(generator)] = True
        rest = (~by_gate).nonzero()[:, 0]
        chosen = by_gate.clone()
        count = min(self.n_random, len(rest))
        if count > 0:  # on the CPU, wherever the gates are: one order for every device
            order = torch.randperm(len(rest), generator=generator, device="cpu")[:count]
            chosen[rest[order.to(device)]] = True
        indices = chosen.nonzero()[:, 0]
        return data.index_select(0, indices), indices, np.where(by_gate[indices].cpu().numpy(), "l0", "random")

    def get_penalty(self) -> Tensor:
        """Expected number of open L0 gates, a scalar in [0, n_items]."""
        return self.l0_gate.get_penalty()

    def extra_repr(self) -> str:
        return f"n_items={self.n_items}, n_l0={self.n_l0}, n_random={self.n_random}"


def _generator(random_seed: int) -> torch.Generator:
    if isinstance(random_seed, bool) or not isinstance(random_seed, Integral):
        raise TypeError(f"random_seed: expected an int, got {type(random_seed).__name__} ({random_seed!r})")
    if not -(2**63) <= random_seed < 2**64:
        raise ValueError(f"random_seed: expected an int from -2^63 to 2^64 - 1, got {random_seed}")
    return torch.Generator(device="cpu").manual_seed(int(random_seed))
