"""What bench_layers.py measures: layers and gate ops, each as l0-python has it, as l0fast has it, and without gates.

All variants of a case take the same state_dict and the same input.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from common import l0fast
from torch import Tensor, nn

from l0fast import ops

Outputs = tuple[Tensor, ...]


class Variant(NamedTuple):
    """A module and what is timed of it, as functions of the module and an input.

    ``outputs`` gives what gets a gradient in training: (y, penalty), or (y,) where there is no penalty. ``infer`` gives
    what is wanted without gradients: of a layer, y alone.
    """

    module: nn.Module
    outputs: Callable[[nn.Module, Tensor], Outputs]
    infer: Callable[[nn.Module, Tensor], Outputs]


PENALTY_WEIGHT = 1e-3
PER_MILLISECOND, PER_NANOSECOND = 1e3, 1e9


@dataclass(frozen=True)
class Case:
    """One row group of the CSV. ``make`` gives a variant by the name in FLOOR, PEER, OURS or COMPOSED."""

    key: str
    title: str
    make: Callable[[str], Variant]
    input_shape: tuple[int, ...]
    input_grad: bool = False
    modes: tuple[str, ...] = ("step", "forward", "eval")
    floor: str = "dense"
    composed: bool = True
    per_gate: int | None = None
    """Gates, where the time of one of them is reported, in nanoseconds, rather than the time of a step."""

    @property
    def unit(self) -> str:
        return "ms" if self.per_gate is None else "ns/gate"

    def reported(self, seconds: float) -> float:
        return seconds * PER_MILLISECOND if self.per_gate is None else seconds * PER_NANOSECOND / self.per_gate


FLOORS = ("dense", "copy")
PEER, COMPILED, OURS, COMPOSED = "l0-python", "l0-python compiled", "l0fast", "l0fast composed"


# -- layers -----------------------------------------------------------------------------------------------------------


def plain(module: nn.Module, x: Tensor) -> Outputs:
    return (module(x),)


def with_penalty(module: nn.Module, x: Tensor) -> Outputs:
    return module(x), module.get_l0_penalty()


def with_loss(module: nn.Module, x: Tensor) -> Outputs:
    return module(x), module.get_l0_loss()


def composed_output(layer: nn.Module, x: Tensor) -> Outputs:
    """The layer from separate ops: gates, their product with the weight, the layer's product."""
    z = ops.hard_concrete(layer.gates.qz_logits, fresh_seed(layer), **layer.gates._gate_options())
    v = layer.weight * layer.spread(z)
    if v.dim() == 2:
        return (nn.functional.linear(x, v, layer.bias),)
    return (nn.functional.conv2d(x, v, layer.bias, layer.stride, layer.padding),)


def composed(layer: nn.Module, x: Tensor) -> Outputs:
    return *composed_output(layer, x), ops.l0_penalty(layer.gates.qz_logits, **layer.gates._gate_options())


def layer_variant(name: str, layer: nn.Module) -> Variant:
    if name in FLOORS:
        return Variant(layer, plain, plain)
    return Variant(layer, composed, composed_output) if name == COMPOSED else Variant(layer, with_penalty, plain)


def fresh_seed(module: nn.Module) -> Tensor | None:
    """What the ops draw gates from; None, for deterministic gates, in evaluation."""
    return torch.randint(0, 2**63 - 1, (1,)) if module.training else None


def library(name: str):
    """The module that has the classes of a gated variant."""
    return importlib.import_module("l0") if name == PEER else l0fast


def linear_case(inputs: int, outputs: int, batch: int, inner: bool) -> Case:
    def make(name: str) -> Variant:
        if name in FLOORS:
            return layer_variant(name, nn.Linear(inputs, outputs))
        return layer_variant(name, library(name).L0Linear(inputs, outputs))

    place = "inner" if inner else "first"
    return Case(
        key=f"linear{inputs}-{place}",
        title=f"L0Linear {inputs}x{outputs}, batch {batch}, {place} layer",
        make=make,
        input_shape=(batch, inputs),
        input_grad=inner,
        # Without gradients there is no difference between the first layer and another.
        modes=("step",) if inner else ("step", "forward", "eval"),
    )


def conv_case(inputs: int, outputs: int, side: int, batch: int, structured: bool) -> Case:
    def make(name: str) -> Variant:
        if name in FLOORS:
            return layer_variant(name, nn.Conv2d(inputs, outputs, 3, padding=1))
        return layer_variant(name, library(name).L0Conv2d(inputs, outputs, 3, padding=1, structured=structured))

    gates = "a gate per channel" if structured else "a gate per weight"
    return Case(
        key="conv-channel" if structured else "conv-weight",
        title=f"L0Conv2d {inputs}->{outputs} 3x3 on {side}x{side}, batch {batch}, {gates}",
        make=make,
        input_shape=(batch, inputs, side, side),
        input_grad=True,
    )


def mlp_case(inputs: int, hidden: int, outputs: int, batch: int) -> Case:
    def make(name: str) -> Variant:
        if name in FLOORS:
            sizes = {"fc1": (inputs, hidden), "fc2": (hidden, hidden), "fc3": (hidden, outputs)}
            return Variant(DenseMLP({fc: nn.Linear(*size) for fc, size in sizes.items()}), plain, plain)
        return Variant(library(name).SparseMLP(inputs, hidden, outputs), with_loss, plain)

    title = f"SparseMLP {inputs}-{hidden}-{hidden}-{outputs}, batch {batch}"
    return Case("mlp", title, make, (batch, inputs), composed=False)


class DenseMLP(nn.ModuleDict):
    """The layers of SparseMLP under the same names, without gates."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self["fc1"](x.reshape(x.size(0), -1)))
        return self["fc3"](torch.relu(self["fc2"](x)))


# -- gate ops ---------------------------------------------------------------------------------------------------------


class WeightAndGates(nn.Module):
    """What the gate ops work on: a weight, gates of its shape, and room for a copy of it."""

    def __init__(self, gates: nn.Module):
        super().__init__()
        self.gates = gates
        self.weight = nn.Parameter(torch.empty_like(gates.qz_logits))
        self.register_buffer("room", torch.zeros_like(gates.qz_logits), persistent=False)


def copy(module: WeightAndGates, _: Tensor) -> Outputs:
    return (module.room.copy_(module.weight.detach()),)


def sampled(module: WeightAndGates, _: Tensor) -> Outputs:
    return (module.gates(),)


def masked(module: WeightAndGates, _: Tensor) -> Outputs:
    return module.weight * module.gates(), module.gates.get_penalty()


def sampled_by_op(module: WeightAndGates, _: Tensor) -> Outputs:
    return (ops.hard_concrete(module.gates.qz_logits, fresh_seed(module), **module.gates._gate_options()),)


def masked_by_op(module: WeightAndGates, _: Tensor) -> Outputs:
    return ops.gated_weight(module.weight, module.gates.qz_logits, fresh_seed(module), **module.gates._gate_options())


def gate_case(op: str, rows: int, columns: int) -> Case:
    peer, ours = {"hard_concrete": (sampled, sampled_by_op), "gated_weight": (masked, masked_by_op)}[op]

    def make(name: str) -> Variant:
        work = copy if name in FLOORS else peer if name == PEER else ours
        return Variant(WeightAndGates(library(name).HardConcrete(rows, columns)), work, work)

    title = {"hard_concrete": "gates z", "gated_weight": "weight * z and penalty"}[op]
    return Case(
        key=f"{op}{rows}",
        title=f"{title} of {rows}x{columns} (ops.{op})",
        make=make,
        input_shape=(1,),
        modes=("step", "forward"),
        floor="copy",
        composed=False,
        per_gate=rows * columns,
    )


def all_cases(quick: bool) -> list[Case]:
    """Every case, or with quick the same ones at sizes that show whether they run, not how fast."""
    # The second size takes the path for large weights in l0fast, in both lists.
    linear = [(32, 24, 8), (512, 512, 4)] if quick else [(784, 256, 128), (1024, 1024, 128), (4096, 4096, 64)]
    cases = [linear_case(*sizes, inner) for sizes in linear for inner in (False, True)]
    conv = (4, 8, 6, 2) if quick else (64, 128, 32, 32)
    cases += [conv_case(*conv, structured) for structured in (False, True)]
    cases.append(mlp_case(20, 16, 5, 8) if quick else mlp_case(784, 256, 10, 128))
    sides = (64,) if quick else (1024, 4096)
    return cases + [gate_case(op, side, side) for op in ("hard_concrete", "gated_weight") for side in sides]
