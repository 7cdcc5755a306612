"""From host memory to a GPU in pieces, through two pinned buffers: while one is on its way the other is filled.

A copy from ordinary memory would wait for each piece; pinning all of a matrix would take its size again in memory that
the system can give to nobody else.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PIECE_BYTES = 64 << 20
"""Of one buffer. Two of them are all the host memory that a transfer takes."""

BUFFERS = 2


def pieces(count: int, itemsize: int, piece_bytes: int = PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """The parts [begin, end) of an array of count elements: all of them once, in order, each at most piece_bytes long.

    Raises:
        ValueError: a piece holds no element.
    """
    step = piece_bytes // itemsize
    if step < 1:
        raise ValueError(f"piece_bytes: expected at least the {itemsize} of one element, got {piece_bytes}")
    for begin in range(0, count, step):
        yield begin, min(begin + step, count)


def stage(
    source: Tensor,
    target: Tensor,
    buffers: list[Tensor],
    wait: Callable[[int], None],
    send: Callable[[int, Tensor, Tensor], None],
) -> None:
    """Copies source to target by way of the buffers in turn; the dtype of target is taken on on the way.

    Args:
        source, target: [n] contiguous.
        buffers: uint8 tensors of one length.
        wait: called with the number of a buffer before it is filled again: returns when it may be.
        send: called with the number of the buffer, the piece of target and what it shall become.
    """
    for turn, (begin, end) in enumerate(pieces(target.numel(), target.itemsize, buffers[0].numel())):
        k = turn % len(buffers)
        wait(k)
        filled = buffers[k][: (end - begin) * target.itemsize].view(target.dtype)
        filled.copy_(source[begin:end])
        send(k, target[begin:end], filled)


def to_cuda(sources: list[Tensor], dtypes: list[torch.dtype], device: torch.device) -> list[Tensor]:
    """Vectors in host memory as vectors of these dtypes on a CUDA device, complete when this returns.

    Takes at most 2 x 64 MB of pinned host memory, which torch keeps for the next transfer.
    """
    largest = max(source.numel() * dtype.itemsize for source, dtype in zip(sources, dtypes, strict=True))
    length = -(-max(1, min(PIECE_BYTES, largest)) // 8) * 8  # whole elements of every dtype
    buffers = [torch.empty(length, dtype=torch.uint8, pin_memory=True) for _ in range(BUFFERS)]
    with torch.cuda.device(device):
        sent = [torch.cuda.Event() for _ in buffers]  # never recorded: nothing to wait for

        def send(k: int, target: Tensor, filled: Tensor) -> None:
            target.copy_(filled, non_blocking=True)
            sent[k].record()

        targets = []
        for source, dtype in zip(sources, dtypes, strict=True):
            targets.append(torch.empty(source.shape, dtype=dtype, device=device))
            stage(source, targets[-1], buffers, lambda k: sent[k].synchronize(), send)
        for event in sent:
            event.synchronize()
    return targets
