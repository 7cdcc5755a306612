"""Granularity: how the gates of a parameter lie on it."""

import math
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .selection import Entry

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EXPECTED = (
    "'element', 'row', 'column', 'channel', 'head', ('head', heads), ('head', heads, dim) or a dimension as an int"
)


class Layout(NamedTuple):
    """Gates of shape ``gates`` multiply the parameter, seen as ``split``, as a tensor of shape ``spread``."""

    gates: tuple[int, ...]
    spread: tuple[int, ...]  # of as many elements as gates; broadcasts against the parameter
    split: tuple[int, tuple[int, ...]] | None = None  # a dimension seen as several
    per_gate: int = 1  # elements of the parameter that one gate multiplies

    @property
    def elementwise(self) -> bool:
        """Whether there is a gate per element, in the order of the elements."""
        return self.per_gate == 1 and self.split is None

    def apply(self, parameter: Tensor, z: Tensor) -> Tensor:
        """The parameter times its gates."""
        z = z.reshape(self.spread)
        if self.split is None:
            return parameter * z
        dim, sizes = self.split
        return (parameter.unflatten(dim, sizes) * z).flatten(dim, dim + len(sizes) - 1)

    def sums(self, values: Tensor) -> Tensor:
        """Of values that lie as the parameter does: the sum for each gate."""
        if self.split is not None:
            values = values.unflatten(*self.split)
        dims = [d for d, size in enumerate(self.spread) if size == 1 and values.shape[d] != 1]
        return (values.sum(dims) if dims else values).reshape(self.gates)


def layout_of(entry: Entry, granularity) -> Layout:
    """The layout that a choice of granularity means for this parameter.

    Raises:
        TypeError, ValueError: it is none, or this parameter cannot have it; the message names the parameter.
    """
    shape = tuple(entry.parameter.shape)
    if granularity == "element" and isinstance(granularity, str):
        return Layout(shape, shape)
    if granularity == "row":
        return _slices(entry, 0)
    if granularity == "column":
        return _slices(entry, 1)
    if granularity == "channel":
        return _slices(entry, 1 if _is_transposed(entry) else 0)
    if granularity == "head" or (isinstance(granularity, tuple) and granularity[:1] == ("head",)):
        return _heads(entry, granularity)
    if isinstance(granularity, Integral) and not isinstance(granularity, bool):
        return _slices(entry, int(granularity))
    if isinstance(granularity, str):
        raise ValueError(f"granularity of {entry.name}: expected {EXPECTED}, got {granularity!r}")
    raise TypeError(f"granularity of {entry.name}: expected {EXPECTED}, got {granularity!r}")


def _is_transposed(entry: Entry) -> bool:
    return entry.parameter.dim() > 1 and isinstance(entry.owners[0], TRANSPOSED)


def _dimension(entry: Entry, dim: int) -> int:
    dims = entry.parameter.dim()
    if not -dims <= dim < dims:
        raise ValueError(
            f"granularity of {entry.name}: expected a dimension of its shape {list(entry.parameter.shape)}, got {dim}"
        )
    return dim % dims


def _slices(entry: Entry, dim: int) -> Layout:
    dim, shape = _dimension(entry, dim), tuple(entry.parameter.shape)
    spread = tuple(size if d == dim else 1 for d, size in enumerate(shape))
    return Layout((shape[dim],), spread, None, math.prod(shape[:dim] + shape[dim + 1 :]))


def _heads(entry: Entry, granularity) -> Layout:
    """One gate per head. The rows of an in_proj are those of q, of k and of v: the three share their head's gate."""
    owner = entry.owners[0]
    attention = isinstance(owner, nn.MultiheadAttention)
    heads, dim = granularity[1:] if isinstance(granularity, tuple) and len(granularity) == 3 else (None, 0)
    if isinstance(granularity, tuple) and len(granularity) == 2:
        heads = granularity[1]
    if heads is None:
        if not attention:
            raise ValueError(
                f"granularity of {entry.name}: expected ('head', heads), as it is not in nn.MultiheadAttention, "
                f"got {granularity!r}"
            )
        heads = owner.num_heads
    for value in (heads, dim):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"granularity of {entry.name}: expected {EXPECTED}, got {granularity!r}")
    dim, shape = _dimension(entry, int(dim)), tuple(entry.parameter.shape)
    parts = 3 if attention and entry.name.rsplit(".", 1)[-1].startswith("in_proj") and dim == 0 else 1
    if heads < 1 or shape[dim] % (parts * heads):
        raise ValueError(
            f"granularity of {entry.name}: expected a number of heads that divides {shape[dim] // parts}, got {heads}"
        )
    sizes = (parts, int(heads), shape[dim] // (parts * heads))
    spread = (*(1,) * dim, 1, heads, 1, *(1,) * (len(shape) - dim - 1))
    return Layout((int(heads),), spread, (dim, sizes), math.prod(shape) // heads)


def per_weight(layouts: list[Layout], like: Tensor) -> Tensor:
    """How many weights each gate multiplies, for the gates of all layouts one after another."""
    counts = [torch.full((math.prod(layout.gates),), float(layout.per_gate), device=like.device) for layout in layouts]
    return torch.cat(counts).to(torch.promote_types(like.dtype, torch.float32))
