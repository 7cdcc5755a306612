"""Gates of their own for each example of a batch: torch.func.vmap over functional_call."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_flatten, tree_unflatten


def refusal(module: nn.Module) -> str | None:
    """Why the module cannot be called with other weights for each example, or None: names the first such module."""
    for name, inner in module.named_modules():
        why = None
        if isinstance(inner, nn.RNNBase | nn.RNNCellBase):
            why = "torch's recurrent kernels take one set of weights for a batch"
        elif isinstance(inner, _BatchNorm) and (inner.training or not inner.track_running_stats):
            why = "its statistics are of the whole batch; put it into evaluation mode or use another normalisation"
        elif isinstance(inner, _InstanceNorm) and inner.training and inner.track_running_stats:
            why = "its running statistics would be kept for each example"
        if why:
            return f"{name!r} is a {type(inner).__name__}: {why}" if name else f"it is a {type(inner).__name__}: {why}"
    return None


def check_exact(module: nn.Module) -> None:
    if why := refusal(module):
        raise ValueError(f"independent: expected a module that takes other weights for each example, but {why}")


def batch_size(args: tuple, batch_dim: int) -> int:
    """Examples in the positional tensors, which all have as many.

    Raises:
        ValueError: there are none, or tensors of other sizes.
    """
    tensors = [leaf for leaf in tree_flatten(args)[0] if isinstance(leaf, Tensor)]
    if not tensors:
        raise ValueError("independent: expected the batch as a positional tensor, got none")
    for tensor in tensors:
        if not -tensor.dim() <= batch_dim < tensor.dim():
            raise ValueError(
                f"independent: expected tensors with the examples along dimension {batch_dim}, "
                f"got shape {list(tensor.shape)}; pass what all examples share by name"
            )
    sizes = {tensor.shape[batch_dim] for tensor in tensors}
    if len(sizes) > 1:
        raise ValueError(
            f"independent: expected as many examples in every positional tensor along dimension {batch_dim}, "
            f"got {sorted(sizes)}; pass what all examples share by name"
        )
    return sizes.pop()


def call(module: nn.Module, masked, gates: list[Tensor], args: tuple, kwargs: dict, batch_dim: int):
    """``module(*args, **kwargs)``, example b with the parameters ``masked([z[b] for z in gates])``.

    Each example is a batch of one for the module, and draws dropout of its own.
    """
    leaves, spec = tree_flatten(args)
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    shape: dict = {}

    def one(gates, *examples):
        filled = list(leaves)
        for place, example in zip(places, examples, strict=True):
            filled[place] = example.unsqueeze(batch_dim)
        output = functional_call(module, masked(gates), tree_unflatten(filled, spec), kwargs)
        values, shape["spec"] = tree_flatten(output)
        shape["others"] = [None if isinstance(v, Tensor) else v for v in values]
        shape["tensors"] = [isinstance(v, Tensor) for v in values]
        return tuple(_one_example(v, batch_dim) for v in values if isinstance(v, Tensor))

    tensors = [leaves[place] for place in places]
    in_dims = (0, *[batch_dim] * len(tensors))
    outputs = iter(torch.vmap(one, in_dims, batch_dim, randomness="different")(gates, *tensors))
    pairs = zip(shape["tensors"], shape["others"], strict=True)
    return tree_unflatten([next(outputs) if is_tensor else other for is_tensor, other in pairs], shape["spec"])


def _one_example(value: Tensor, batch_dim: int) -> Tensor:
    if not -value.dim() <= batch_dim < value.dim() or value.shape[batch_dim] != 1:
        raise ValueError(
            f"independent: expected outputs with the examples along dimension {batch_dim}, "
            f"got shape {list(value.shape)} for a batch of one"
        )
    return value.squeeze(batch_dim)
