"""The most probable gates of all processes."""

import torch
from torch import Tensor


def most_probable_of_all(log_alpha: Tensor, k: int, group) -> Tensor:
    """Places here, increasing int64, of the k largest log_alpha of all processes; among equal ones the first records.

    A bisection over the bits of the numbers: one count travels for each bit.

    Args:
        log_alpha: this process's [n] float32 or float64, without NaN.
        k: from 0 to the number of records in all processes.
    """
    keys, bits = _ordered(log_alpha)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)  # at least k keys are >= low, fewer are >= high
    while high - low > 1:
        middle = (low + high) // 2
        if group.sum(int((keys >= middle).sum()))[0] >= k:
            low = middle
        else:
            high = middle
    above, equal = keys > low, (keys == low).nonzero().squeeze(1)
    counts = [0] * group.size
    counts[group.rank] = len(equal)
    more = k - group.sum(int(above.sum()))[0]
    before = sum(group.sum(*counts)[: group.rank])
    above[equal[: max(more - before, 0)]] = True
    return above.nonzero().squeeze(1)


def _ordered(x: Tensor) -> tuple[Tensor, int]:
    """int64 keys in the order of the floats, and how many bits they have: of a negative one, all but the sign flip."""
    wide = x.dtype == torch.float64
    integers = (x + 0.0).view(torch.int64 if wide else torch.int32).to(torch.int64)  # -0 + 0 is 0: equal, so one key
    bits = 64 if wide else 32
    return torch.where(integers < 0, integers ^ (2 ** (bits - 1) - 1), integers), bits
