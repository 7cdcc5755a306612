"""Gated parameters whose gates are drawn together."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Layout


class Group(NamedTuple):
    """Parameters of one dtype and device, all with a gate per element or all with gates for slices."""

    elementwise: bool
    names: list[str]
    layouts: list[Layout]
    log_alphas: list[Tensor]
    weights: list[Tensor]

    def flat(self) -> Tensor:
        """log_alpha of all gates, one after another."""
        return joined(self.log_alphas)

    def flat_weights(self) -> Tensor:
        return joined(self.weights)

    def split(self, flat: Tensor) -> list[Tensor]:
        """What :meth:`flat` joined, apart again, along the last dimension."""
        sizes = [values.numel() for values in self.log_alphas]
        return [flat] if len(sizes) == 1 else list(flat.split(sizes, -1))

    def multiplied(self, z: Tensor) -> Iterator[Tensor]:
        """Each parameter times its part of the gates z."""
        for layout, weight, part in zip(self.layouts, self.weights, self.split(z), strict=True):
            yield layout.apply(weight, part).to(weight.dtype)


def joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0].reshape(-1) if len(tensors) == 1 else torch.cat([t.reshape(-1) for t in tensors])


def grouped(members: Iterator[tuple[str, Layout, Tensor, Tensor]]) -> list[Group]:
    """Groups of (name, layout, log_alpha, weight), as dtypes and devices are now."""
    groups: dict[tuple, Group] = {}
    for name, layout, log_alpha, weight in members:
        alike = (log_alpha.dtype, log_alpha.device) == (weight.dtype, weight.device)
        elementwise = layout.elementwise and alike
        group = groups.setdefault((log_alpha.dtype, log_alpha.device, elementwise), Group(elementwise, [], [], [], []))
        for column, value in zip(group[1:], (name, layout, log_alpha, weight), strict=True):
            column.append(value)
    return list(groups.values())
