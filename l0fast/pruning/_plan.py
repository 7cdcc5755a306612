"""Which channels go, and how the layers that read them make up for it."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import _channels as ch
from ._tracing import Tracer

Cluster = frozenset[str]
"""The names of the layers that make a channel."""


@dataclass(frozen=True)
class Read:
    """One input channel of a layer that mixes channels, where its weights are not all 0."""

    ports: ch.Ports
    index: int
    value: float  # NaN: no constant

    @property
    def folds(self) -> bool:
        """Whether the layer's bias can take over what the constant contributes."""
        return self.value == 0 or not ch.is_padded(self.ports.layer)


@dataclass
class Set:
    """Channels that go together."""

    outputs: list[tuple[ch.Ports, int]]
    reads: list[Read]
    closed: list[tuple[str, int]]

    @property
    def cluster(self) -> Cluster:
        return frozenset(ports.name for ports, _ in self.outputs)


class Plan:
    """What can be taken out of a traced model.

    Attributes:
        removed: numbers of the sets of channels that go. reasons: why a set stays, by number.
        carrier_of: for a set that goes, the set whose channel takes over its constant where zero
            padding forbids a bias.
    """

    def __init__(self, tracer: Tracer, banned: dict[Cluster, str]):
        self.channels = tracer.channels
        self.ports = list(tracer.ports.values())
        self.sets = self._collect(tracer)
        self.reasons: dict[int, str] = {}
        self.removed: set[int] = set()
        self.carrier_of: dict[int, int] = {}
        for number, members in self.sets.items():
            reason = self.channels.reasons.get(number) or banned.get(members.cluster) or _why_not(members)
            if reason is None:
                self.removed.add(number)
            else:
                self.reasons[number] = reason
        self._choose_carriers()
        self._keep_one_of_each()

    def _collect(self, tracer: Tracer) -> dict[int, Set]:
        sets: dict[int, Set] = {}

        def set_of(channel: int) -> Set:
            return sets.setdefault(self.channels.find(channel), Set([], [], []))

        for ports in self.ports:
            closed = ch.closed_outputs(ports.layer).tolist()
            for index, channel in enumerate(ports.outputs):
                members = set_of(channel)
                members.outputs.append((ports, index))
                if closed[index]:
                    members.closed.append((ports.name, index))
            if ports.layer in tracer.constants:
                unread = ch.unread_inputs(ports.layer).tolist() if not ch.is_grouped(ports.layer) else None
                values = tracer.constants[ports.layer].tolist()
                for index, channel in enumerate(ports.inputs):
                    if unread is None or not unread[index]:
                        set_of(channel).reads.append(Read(ports, index, values[index]))
        return sets

    def _choose_carriers(self) -> None:
        """Of the constants that zero padding keeps from a bias, one channel of each kind stays and carries all.

        Padding treats all constant channels alike: the layer's response to each is a multiple of that to another.
        """
        kinds: dict[tuple, list[int]] = {}
        for number in sorted(self.removed):
            readers = frozenset(read.ports.name for read in self.sets[number].reads if not read.folds)
            if readers:
                kinds.setdefault((self.sets[number].cluster, readers), []).append(number)
        for (_, readers), numbers in kinds.items():
            carrier = max(numbers, key=lambda number: min(abs(r.value) for r in self._unfolded(number)))
            self.removed.discard(carrier)
            names = ", ".join(map(repr, sorted(readers)))
            self.reasons[carrier] = f"it carries the constants of closed channels into {names}, which pads with zeros"
            self.carrier_of.update({number: carrier for number in numbers if number != carrier})

    def _unfolded(self, number: int) -> list[Read]:
        return [read for read in self.sets[number].reads if not read.folds]

    def _keep_one_of_each(self) -> None:
        for ports in self.ports:
            for channels in (ports.outputs, ports.inputs):
                numbers = [self.channels.find(channel) for channel in channels]
                if numbers and self.removed.issuperset(numbers):
                    self.removed.discard(numbers[0])
                    self.reasons[numbers[0]] = f"it is the last channel of {ports.name!r}"

    def clusters(self) -> set[Cluster]:
        """Parts of the plan that can be carried out one by one."""
        return {self.sets[number].cluster for number in self.removed}

    def apply(self, model: nn.Module, only: Cluster | None = None) -> nn.Module:
        """A copy of the traced model without the channels that go (with ``only``: those of this cluster)."""
        removed = {n for n in self.removed if only is None or self.sets[n].cluster == only}
        model = copy.deepcopy(model)
        for number in sorted(removed):
            self._make_up_for(number, model)
        for ports in self.ports:
            per_channel = ch.is_per_channel(ports.layer)
            outputs = self._kept(ports.outputs, removed)
            inputs = None if per_channel else self._kept(ports.inputs, removed)
            if outputs is not None or inputs is not None:
                ch.cut(model.get_submodule(ports.name), outputs, inputs)
        return model

    def _kept(self, channels: range, removed: set[int]) -> Tensor | None:
        kept = [index for index, channel in enumerate(channels) if self.channels.find(channel) not in removed]
        return None if len(kept) == len(channels) else torch.tensor(kept)

    def kept_outputs(self, ports: ch.Ports) -> list[int]:
        return [index for index, channel in enumerate(ports.outputs) if self.channels.find(channel) not in self.removed]

    @torch.no_grad()
    def _make_up_for(self, number: int, model: nn.Module) -> None:
        """What the constants of a set contribute goes to the bias of each reader, or to the carrier's weights."""
        for read in self.sets[number].reads:
            if read.value == 0:
                continue
            layer, origin = model.get_submodule(read.ports.name), read.ports.layer
            part = origin.weight.detach().select(ch.in_dim(origin), read.index).double()
            if read.folds:
                _add_to_bias(layer, part.flatten(1).sum(1) * read.value if part.dim() > 1 else part * read.value)
                continue
            carrier = next(r for r in self._unfolded(self.carrier_of[number]) if r.ports is read.ports)
            column = layer.weight.select(ch.in_dim(origin), carrier.index)
            column += (part * (read.value / carrier.value)).to(column.dtype)


def _why_not(members: Set) -> str | None:
    for read in members.reads:
        if read.value != read.value:
            return f"{read.ports.name!r} reads it, and it is no single constant there"
    return None


def _add_to_bias(layer: nn.Module, amount: Tensor) -> None:
    old = layer.bias
    base = torch.zeros_like(amount) if old is None else old.double()
    grad = layer.weight.requires_grad if old is None else old.requires_grad
    layer.bias = nn.Parameter((base + amount).to(layer.weight.dtype), requires_grad=grad)
