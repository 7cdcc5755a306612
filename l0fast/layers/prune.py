"""Weights of improbable gates set to zero."""

import copy

import torch
from torch import nn

from .._checks import as_probability
from ..activity import L0Dense as ActivityDense
from ..neuron._base import NeuronGatedLayer
from ..wrap import L0Regularizer
from ._base import GatedLayer


@torch.no_grad()
def prune_model(model: nn.Module, threshold: float = 0.05, inplace: bool = True) -> nn.Module:
    """Puts the model into evaluation mode and sets the weights to 0 whose gate has P(z != 0) <= threshold.

    Args:
        model: holds gated layers of :mod:`l0fast.layers`, :mod:`l0fast.neuron` or :mod:`l0fast.activity`, or wrapped
            modules, at any depth. A closed neuron-level gate takes its whole group along, the bias of a convolution's
            map included.
        threshold: probability in [0, 1].
        inplace: False prunes a deep copy and leaves the model as it is, its mode included.

    Returns:
        The pruned model. Gates stay: the result trains on and saves as before.

    In evaluation a gate is 0 already where P(z != 0) <= 1/2 (P <= 0.31 with the test-time gate of the original
    authors, ``eval_temperature=False``), so a threshold up to
    1/2 changes weights but no output.

    Raises:
        TypeError, ValueError: model is no module, threshold no probability, or a gated layer's weight no parameter (it
            is recomputed from others, which would undo the zeros). The model is unchanged then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    threshold = as_probability("threshold", threshold)
    for name, layer in model.named_modules():
        weight = getattr(layer, "weights" if isinstance(layer, NeuronGatedLayer) else "weight", None)
        if isinstance(layer, GatedLayer | NeuronGatedLayer) and not isinstance(weight, nn.Parameter):
            raise ValueError(
                f"prune_model: the weight of layer {name or 'the model itself'!r} is no parameter but recomputed from "
                "others (a parametrization or weight_norm), which would undo the pruning; remove that first"
            )
    if not inplace:
        model = copy.deepcopy(model)
    model.eval()
    for layer in model.modules():
        if isinstance(layer, GatedLayer):
            closed = layer.gates.get_active_prob() <= threshold
            layer.weight.masked_fill_(layer.spread(closed), 0)
        elif isinstance(layer, NeuronGatedLayer):
            layer.clear_groups(layer.active_probability() <= threshold)
        elif isinstance(layer, L0Regularizer | ActivityDense):
            layer.prune(threshold)
    return model
