"""Where ordinary layers have channels: which dimensions, which are closed or unread, how some are cut out."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
MIXING = (nn.Linear, *CONVS, *TRANSPOSED)
"""Each output reads every input: channels end here and others begin."""


def is_depthwise(layer: nn.Module) -> bool:
    return type(layer) in CONVS and layer.groups == layer.in_channels == layer.out_channels > 1


def is_known(layer: nn.Module) -> bool:
    """Whether compact knows the layer as a whole. Subclasses may do anything, so the type must be the very one."""
    if type(layer) is nn.PReLU:
        return layer.num_parameters > 1
    if type(layer) is nn.Embedding:
        return layer.max_norm is None
    return type(layer) in (*MIXING, *BATCH_NORMS, *INSTANCE_NORMS)


def is_per_channel(layer: nn.Module) -> bool:
    """Whether output channel c reads input channel c and no other."""
    return type(layer) in (*BATCH_NORMS, *INSTANCE_NORMS, nn.PReLU) or is_depthwise(layer)


def is_grouped(layer: nn.Module) -> bool:
    return type(layer) in (*CONVS, *TRANSPOSED) and layer.groups > 1 and not is_depthwise(layer)


def is_padded(layer: nn.Module) -> bool:
    """Whether a constant input channel gives no constant output, because zeros (or nothing) lie beyond the edge."""
    if type(layer) in TRANSPOSED:
        return True
    if type(layer) not in CONVS or layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    return layer.padding == "same" or any(layer.padding)


def out_channels(layer: nn.Module) -> int:
    for name in ("out_features", "out_channels", "embedding_dim", "num_features", "num_parameters"):
        if hasattr(layer, name):
            return getattr(layer, name)
    raise TypeError(f"no channels: {layer}")


def in_channels(layer: nn.Module) -> int:
    """Of a layer that mixes channels."""
    return layer.in_features if type(layer) is nn.Linear else layer.in_channels


def channel_axis(layer: nn.Module, rank: int) -> int:
    """The dimension of channels in an input or output of the layer that has ``rank`` dimensions."""
    if type(layer) in (nn.Linear, nn.Embedding):
        return rank - 1
    if type(layer) in (*CONVS, *TRANSPOSED):
        return rank - len(layer.kernel_size) - 1
    if type(layer) in INSTANCE_NORMS:
        return rank - INSTANCE_NORMS.index(type(layer)) - 2
    return 1


def out_dim(layer: nn.Module) -> int:
    """The dimension of the weight along which outputs lie."""
    return 1 if type(layer) in (*TRANSPOSED, nn.Embedding) else 0


def in_dim(layer: nn.Module) -> int:
    return 0 if type(layer) in TRANSPOSED else 1


def closed_outputs(layer: nn.Module) -> Tensor:
    """Whether each output's weights are all 0, so that it is its bias whatever the input. Shape [out_channels]."""
    if type(layer) in (*MIXING, nn.Embedding) and not is_grouped(layer):
        return (layer.weight.detach() == 0).movedim(out_dim(layer), 0).flatten(1).all(1).cpu()
    return torch.zeros(out_channels(layer), dtype=torch.bool)


def unread_inputs(layer: nn.Module) -> Tensor:
    """Whether each input meets weights of 0 only. Shape [in_channels]."""
    return (layer.weight.detach() == 0).movedim(in_dim(layer), 0).flatten(1).all(1).cpu()


def cut(layer: nn.Module, outputs: Tensor | None, inputs: Tensor | None) -> None:
    """Keeps only the outputs and inputs of these indices; None keeps all."""
    if outputs is not None:
        _select(layer, "weight", out_dim(layer), outputs)
        for name in ("bias", "running_mean", "running_var"):
            _select(layer, name, 0, outputs)
        for name in ("out_features", "out_channels", "embedding_dim", "num_features", "num_parameters"):
            if hasattr(layer, name):
                setattr(layer, name, len(outputs))
        if is_depthwise_after_cut(layer):
            layer.in_channels = layer.groups = len(outputs)
    if inputs is not None:
        _select(layer, "weight", in_dim(layer), inputs)
        setattr(layer, "in_features" if type(layer) is nn.Linear else "in_channels", len(inputs))


def is_depthwise_after_cut(layer: nn.Module) -> bool:
    return type(layer) in CONVS and layer.groups == layer.in_channels > 1


def _select(layer: nn.Module, name: str, dim: int, keep: Tensor) -> None:
    old = getattr(layer, name, None)
    if old is None:
        return
    dim = dim if old.dim() > 1 else 0
    new = old.detach().index_select(dim, keep.to(old.device)).clone()
    setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad) if name in layer._parameters else new)


@dataclass
class Ports:
    """The numbers of a layer's channels among all channels of the model; per-channel layers have one set."""

    name: str
    layer: nn.Module
    outputs: range
    inputs: range


@dataclass
class Channels:
    """Which channels of which layers must go together, as a forest of sets, and why some sets must stay."""

    parent: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, name: str, layer: nn.Module) -> Ports:
        outputs = self._new(out_channels(layer))
        if is_per_channel(layer):
            return Ports(name, layer, outputs, outputs)
        return Ports(name, layer, outputs, self._new(in_channels(layer)) if type(layer) in MIXING else range(0))

    def _new(self, count: int) -> range:
        begin = len(self.parent)
        self.parent.extend(range(begin, begin + count))
        return range(begin, begin + count)

    def find(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = channel = self.parent[self.parent[channel]]
        return channel

    def unite(self, first: int, second: int) -> None:
        first, second = self.find(first), self.find(second)
        if first != second:
            self.parent[second] = first
            if second in self.reasons:
                self.reasons.setdefault(first, self.reasons.pop(second))

    def pin(self, channel: int, reason: str) -> None:
        """The set of this channel stays."""
        self.reasons.setdefault(self.find(channel), reason)
