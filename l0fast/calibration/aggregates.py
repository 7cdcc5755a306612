"""The part of the loss that is about parents of targets, as tensors."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .hierarchy import Family, as_hierarchy


@dataclass(frozen=True)
class Aggregates:
    """What the loss needs of a family: tensors [n_parents] float64, children of parent after parent int64."""

    children: Tensor
    counts: Tensor
    targets: Tensor
    scales: Tensor
    omega: Tensor

    @classmethod
    def of(
        cls,
        hierarchy,
        y: np.ndarray,
        scales: Callable[[np.ndarray], np.ndarray],
        per_level: bool,
        divisor: float,
        device,
    ) -> "Aggregates":
        """scales: a function of totals, by the loss type; divisor: of omega, the targets' own."""
        family = Family.of(as_hierarchy(hierarchy, len(y)), len(y))
        omega, (totals, _) = family.omega(per_level) / divisor, family.totals(y)
        widths = scales(totals)
        if (zero := np.flatnonzero(widths == 0)).size:
            raise ValueError(
                f"hierarchy: loss_type 'relative' divides by total + 1, which is 0 for {family.labels[zero[0]]!r}"
            )
        counts = np.array([len(leaves) for leaves in family.leaves], dtype=np.int64)
        arrays = (np.concatenate(family.leaves), counts, totals, widths, omega)
        return cls(*(torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in arrays))

    def estimates(self, totals: Tensor) -> Tensor:
        """Sums [n_parents] of the children's totals, differentiable; in a fixed order on every device."""
        # unsafe: the check of the counts, which are right by construction, would wait for the device in every epoch.
        return torch.segment_reduce(totals[self.children], "sum", lengths=self.counts, unsafe=True)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for x in (self.children, self.counts, self.targets, self.scales, self.omega):
            digest.update(x.cpu().numpy().tobytes())
        return digest.hexdigest()
