"""Which modules of a model answer for which gates, so that a penalty of the whole model counts each once."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .._modules import unchanged
from ..distributions import HardConcrete
from ..layers._base import GatedLayer

Answer = tuple[nn.Module, Tensor]
"""A module and what its get_l0_penalty returned."""


def named_gated_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of all that have ``get_l0_penalty`` themselves, parents before children.

    Wrappers that pass every attribute on (torch.compile's, FSDP's) only seem to have it: the module inside counts.
    """
    for name, module in model.named_modules():
        method = getattr(module, "get_l0_penalty", None)
        if callable(method) and not _passed_on(method, module):
            yield name, module


def _passed_on(method, module: nn.Module) -> bool:
    owner = getattr(method, "__self__", module)
    return owner is not module and any(owner is inner for inner in module.modules())


def has_plain_gates(module: nn.Module) -> bool:
    """Whether ``get_l0_penalty`` is sum p over the module's HardConcrete gates: one op can do it for many modules."""
    if not isinstance(module, GatedLayer) or not unchanged(module, GatedLayer, "get_l0_penalty", "gates"):
        return False
    gates = module.gates
    return (
        isinstance(gates, HardConcrete)
        and unchanged(gates, HardConcrete, "get_penalty")
        and gates.qz_logits.dtype in (torch.float32, torch.float64)
    )


def split_penalties(model: nn.Module) -> tuple[list[GatedLayer], list[Answer]]:
    """The layers with plain gates, still to be summed, and every other module with what its method returned.

    A module whose own ``get_l0_penalty`` reads the gates of modules below it has counted them: they are left out.
    """
    modules = [module for _, module in named_gated_modules(model)]
    plain: list[GatedLayer] = []
    others: list[nn.Module] = []
    for module in modules:
        (plain if has_plain_gates(module) else others).append(module)
    below = {m: [inner for inner in m.modules() if inner is not m and inner in modules] for m in others}
    if not any(below.values()):
        return plain, [(module, module.get_l0_penalty()) for module in others]
    return _asked_in_turn(below, plain)


def _asked_in_turn(below: dict[nn.Module, list[nn.Module]], plain: list[GatedLayer]):
    counted: set[nn.Module] = set()
    answers: list[Answer] = []
    # A module before those below it, also where one of these is registered a second time, further up.
    for module in sorted(below, key=lambda m: -len(below[m])):
        if module in counted:
            continue
        with _Reads() as reads:
            answers.append((module, module.get_l0_penalty()))
        counted.update(m for m in below[module] if reads.any_of(m if m in below else m.gates))
    return [module for module in plain if module not in counted], answers


# Dynamo cannot trace a dispatch mode; models without containers of their own never come here. This
# is the mark that torch.compiler.disable leaves; calling that would import all of dynamo (0.9 s) with l0fast.
_asked_in_turn._torchdynamo_disable = True


class _Reads(TorchDispatchMode):
    """Notes which tensors the ops of a block read: with and without autograd, in any device's kernels."""

    def __init__(self):
        super().__init__()
        self.tensors: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.tensors.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return function(*args, **kwargs)

    def any_of(self, module: nn.Module) -> bool:
        return any(id(parameter) in self.tensors for parameter in module.parameters())
