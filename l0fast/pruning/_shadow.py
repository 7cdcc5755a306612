"""What goes beside an activation while a model is traced."""

from typing import NamedTuple

import torch
from torch import Tensor


class Shadow(NamedTuple):
    """Of a tensor's rank; size 1 along dimensions in which nothing varies.

    labels: int64 numbers of channels, -1 where an element belongs to none. fixed: whether the value is constant.
    """

    labels: Tensor
    fixed: Tensor

    @classmethod
    def of(cls, labels: Tensor, fixed: Tensor) -> "Shadow":
        return cls(_compact(labels), _compact(fixed))

    @classmethod
    def unknown(cls, tensor: Tensor, fixed: bool = False) -> "Shadow":
        shape = (1,) * tensor.dim()
        device = tensor.device
        return cls(torch.full(shape, -1, device=device), torch.full(shape, fixed, device=device))


def _compact(x: Tensor) -> Tensor:
    for d in range(x.dim()):
        first = x.narrow(d, 0, 1) if x.shape[d] > 1 else x
        if x.shape[d] > 1 and (x.stride(d) == 0 or bool((x == first).all())):
            x = first
    return x
