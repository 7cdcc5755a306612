"""Gated layers replaced by ordinary ones."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..activity import L0Activation, TensorRegularizer
from ..activity import L0Dense as ActivityDense
from ..layers import (
    L0Conv1d,
    L0Conv2d,
    L0Conv3d,
    L0ConvTranspose2d,
    L0DepthwiseConv2d,
    L0Embedding,
    L0Linear,
)
from ..layers._base import GatedLayer
from ..neuron import conv as neuron_conv
from ..neuron import dense as neuron_dense
from ..neuron._base import NeuronGatedLayer
from ..wrap import L0Regularizer

WHOLE = (L0Regularizer, ActivityDense, L0Activation)
"""Modules that make their ordinary counterpart themselves."""

FOLDABLE = (GatedLayer, NeuronGatedLayer, neuron_dense.MAPDense, neuron_conv.MAPConv2d, *WHOLE)
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@torch.no_grad()
def materialize(model: nn.Module, inplace: bool = False) -> nn.Module:
    """The model with an ordinary layer in place of every gated one: weight ``weight * z`` with deterministic gates z.

    L0Linear becomes nn.Linear, L0Conv1d/2d/3d and L0DepthwiseConv2d become nn.Conv1d/2d/3d, L0ConvTranspose2d becomes
    nn.ConvTranspose2d and L0Embedding nn.Embedding; the dense layers and convolutions of :mod:`l0fast.neuron` become
    nn.Linear and nn.Conv2d, whose bias is gated where theirs is; an L0Regularizer becomes the module that it wraps, an
    activity.L0Dense an nn.Linear and its activation, an L0Activation a fixed mask. Other biases (parameters shared with
    others included), geometry, dtype, device, ``requires_grad`` and the names of the modules stay; a layer used in
    several places stays one layer. The result computes exactly what the model computes in evaluation, and exports with
    torch.export and torch.onnx.

    A gated weight that others share (tied embeddings) parts from them: they read it without gates, before and after.

    Args:
        model: holds gated layers of :mod:`l0fast.layers`, :mod:`l0fast.neuron` or :mod:`l0fast.activity` or wrapped
            modules at any depth, or is one.
        inplace: False leaves the model as it is and works on a deep copy.

    Returns:
        The model without gated layers, in evaluation mode. Where ``model`` itself is a gated layer, it is the ordinary
        layer in its place, also with ``inplace=True``.

    Raises:
        TypeError: model is no module, or holds a gated layer whose forward is not one of l0fast's own, or an
            l0_regularizer, which belongs to code that nobody here can read.
        ValueError: a gated layer carries hooks, which an ordinary layer would not run in the same way.
            Both name the layer, and are raised before anything is changed.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for name, layer in model.named_modules():
        if isinstance(layer, FOLDABLE):
            _check_foldable(name or "the model itself", layer)
    _check_no_functional_gates(model)
    if not inplace:
        model = copy.deepcopy(model)
    model.eval()
    ordinary = {layer: _ordinary(layer) for layer in model.modules() if isinstance(layer, FOLDABLE)}
    if model in ordinary:
        return ordinary[model]
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in ordinary:
                parent.register_module(name, ordinary[child])
    return model


def _check_foldable(name: str, layer: nn.Module) -> None:
    """Refuses what would compute something else than the ordinary layer that takes its place."""
    base = _known_base(layer)
    kind = type(layer).__name__
    if base is None:
        known = ", ".join(kind.__name__ for kind in BUILDERS)
        raise TypeError(f"materialize: layer {name!r} is a {kind}; expected one of {known}")
    if type(layer).forward is not base.forward or "forward" in vars(layer):
        raise TypeError(
            f"materialize: layer {name!r} ({kind}) has a forward of its own; expected that of {base.__name__}. "
            "Replace the layer by an ordinary one first"
        )
    inner = [layer.depthwise_conv] if isinstance(layer, L0DepthwiseConv2d) else []
    if inner and type(inner[0]) is not nn.Conv2d:
        raise TypeError(
            f"materialize: layer {name!r} (L0DepthwiseConv2d) holds a {type(inner[0]).__name__} as depthwise_conv; "
            "expected a torch.nn.Conv2d"
        )
    if any(getattr(module, hooks) for module in [layer, *inner] for hooks in HOOKS):
        raise ValueError(f"materialize: layer {name!r} ({kind}) has hooks; remove them first")


def _check_no_functional_gates(model: nn.Module) -> None:
    folded = {part for layer in model.modules() if isinstance(layer, ActivityDense) for part in layer.modules()}
    for name, module in model.named_modules():
        if isinstance(module, TensorRegularizer) and module not in folded:
            raise TypeError(
                f"materialize: {name or 'the model itself'!r} is an l0_regularizer, expected gates of a layer: "
                "put its masked tensor in place of the tensor first"
            )


def _known_base(layer: nn.Module) -> type | None:
    return next((base for base in BUILDERS if isinstance(layer, base)), None)


def _ordinary(layer: nn.Module) -> nn.Module:
    if isinstance(layer, WHOLE):
        return layer.materialize()
    layer.eval()
    trained = layer.weights if isinstance(layer, NeuronGatedLayer) else layer.weight
    weight, bias = (layer.masked_weight(), layer.bias) if isinstance(layer, GatedLayer) else layer.folded()
    made = BUILDERS[_known_base(layer)](layer)
    made.weight = nn.Parameter(_own(weight), requires_grad=trained.requires_grad)
    if isinstance(bias, nn.Parameter):
        made.bias = bias  # the very parameter: one that other modules share stays shared
    elif bias is not None:
        made.bias = nn.Parameter(_own(bias), requires_grad=layer.bias.requires_grad)
    return made.eval()


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _linear(layer: nn.Module) -> nn.Module:
    return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")


def _embedding(layer: L0Embedding) -> nn.Module:
    return nn.Embedding(layer.num_embeddings, layer.embedding_dim, layer.padding_idx, device="meta")


def _conv(kind: type) -> Callable[[nn.Module], nn.Module]:
    def build(layer):
        return kind(
            *(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding),
            dilation=layer.dilation,
            groups=layer.groups,
            bias=layer.bias is not None,
            padding_mode=getattr(layer, "padding_mode", "zeros"),
            device="meta",
            **({"output_padding": layer.output_padding} if kind is nn.ConvTranspose2d else {}),
        )

    return build


def _depthwise(layer: L0DepthwiseConv2d) -> nn.Module:
    return _conv(nn.Conv2d)(layer.depthwise_conv)


BUILDERS: dict[type, Callable[[nn.Module], nn.Module]] = {
    L0Linear: _linear,
    L0Conv1d: _conv(nn.Conv1d),
    L0Conv2d: _conv(nn.Conv2d),
    L0Conv3d: _conv(nn.Conv3d),
    L0DepthwiseConv2d: _depthwise,
    L0ConvTranspose2d: _conv(nn.ConvTranspose2d),
    L0Embedding: _embedding,
    neuron_dense.L0Dense: _linear,
    neuron_dense.MAPDense: _linear,
    neuron_conv.L0Conv2d: _conv(nn.Conv2d),
    neuron_conv.MAPConv2d: _conv(nn.Conv2d),
    **{kind: kind.materialize for kind in WHOLE},
}
"""What makes the ordinary layer, its parameters on the meta device: they are replaced, so none need be drawn. The last
make theirs with all parameters, which for a wrapped module may be many."""
