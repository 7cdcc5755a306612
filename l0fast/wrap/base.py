"""A module's copy, its gates' parameters, and the draw of all gates at once."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .. import _linked, ops
from .. import constants as c
from .._checks import positive
from . import fused
from .group import Group, grouped
from .layout import Layout


class GatedParameters(nn.Module):
    """What L0Regularizer is built on; see there."""

    module: nn.Module
    log_alpha: nn.Module
    limit_a: float
    limit_b: float
    epsilon: float
    eval_temperature: bool
    _layouts: dict[str, Layout]

    @property
    def temperature(self) -> float:
        """beta, above 0; assigning another value takes effect at the next draw."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = positive("temperature", value)

    def masked_parameters(self) -> dict[str, Tensor]:
        """``parameter * z`` by name, differentiable: with gates drawn now in training, without noise in evaluation."""
        named: dict[str, Tensor] = {}
        self._links: list[fused.Link] = []
        for group in self._groups():
            named.update(zip(group.names, self._draw(group), strict=True))
        return named

    def _draw(self, group: Group, quiet: bool = False) -> Iterable[Tensor]:
        """``parameter * z`` of a group, in one launch for all its gates."""
        if quiet or not self.training:
            seed, options = None, {"eval_temperature": self.eval_temperature, **self._shape()}
        else:
            seed, options = _draw_seed(group.log_alphas[0].device), {"uniform_eps": self.epsilon, **self._shape()}
        if not group.elementwise:
            return group.multiplied(ops.hard_concrete(group.flat(), seed, **options))
        masked, link = fused.masked(group, seed, options)
        if link is not None:
            self._links.append(link)
        return masked

    def _take_link(self, group: Group) -> fused.Link | None:
        """Once: what it was made of takes memory until then."""
        if not _linked.eager():  # first: torch.compile would guard on the list
            return None
        for place, link in enumerate(self._links):
            if link.fits(group, self._shape()):
                return self._links.pop(place)
        return None

    def gated_count(self) -> int:
        """Number of weights that have a gate."""
        return sum(self.module.get_parameter(name).numel() for name in self._layouts)

    def _groups(self) -> list[Group]:
        """The gated parameters by dtype, device and kind of layout, as they are now."""
        items = self._layouts.items()
        return grouped(
            (name, layout, _found(self.log_alpha, name), _found(self.module, name)) for name, layout in items
        )

    def _shape(self) -> dict[str, float]:
        return {
            "temperature": self._temperature,
            "gamma": self.limit_a,
            "zeta": self.limit_b,
            "bound": c.LOG_ALPHA_BOUND,
        }

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_links": []}  # a graph belongs to no copy


def register(root: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """The parameter under a dotted name: modules without anything of their own make the path."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]
    root.register_parameter(last, parameter)


def _found(root: nn.Module, name: str) -> Tensor:
    """What lies there now: torch.func puts tensors in the place of parameters, which get_parameter refuses."""
    path, _, last = name.rpartition(".")
    return getattr(root.get_submodule(path), last)


def _draw_seed(device: torch.device) -> Tensor:
    return torch.randint(0, 2**63 - 1, (1,), device=device)
