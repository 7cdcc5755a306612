"""The name of a matrix that no process holds: its bytes pass through process 0 once, in pieces."""

import hashlib

import torch
import torch.distributed as dist

PIECE_BYTES = 16 << 20


def matrix_sha256(group, matrix) -> str:
    """What PackedMatrix.sha256 would be of all columns together, the same for any number of processes.

    The matrix travels to process 0 once, which hashes at one to two GB a second.
    """
    before = _before(group, matrix.nnz)
    arrays = (matrix.indptr[group.rank > 0 :] + before, matrix.rows, matrix.values)
    content = hashlib.sha256(f"l0fast.PackedMatrix {(matrix.n_targets, group.n_total)} {matrix.dtype}".encode())
    for array in arrays:
        _feed(group, array.contiguous().view(torch.uint8), content)
    digest = torch.frombuffer(bytearray(content.digest()), dtype=torch.uint8).to(group.device)
    group._call(dist.broadcast, digest, group_src=0)
    return bytes(digest.tolist()).hex()


def _before(group, count: int) -> int:
    """The sum of the counts of the processes before this one."""
    counts = [0] * group.size
    counts[group.rank] = count
    return sum(group.sum(*counts)[: group.rank])


def _feed(group, content: torch.Tensor, digest) -> None:
    """Process 0 takes the bytes of all in turn."""
    lengths = [0] * group.size
    lengths[group.rank] = content.numel()
    lengths = group.sum(*lengths)
    if not group.is_first:
        for piece in content.split(PIECE_BYTES):
            if piece.numel():
                group._call(dist.send, piece.to(group.device), group_dst=0)
        return
    for piece in content.split(PIECE_BYTES):
        digest.update(piece.cpu().numpy())
    buffer = torch.empty(PIECE_BYTES, dtype=torch.uint8, device=group.device)
    for rank in range(1, group.size):
        for start in range(0, lengths[rank], PIECE_BYTES):
            piece = buffer[: min(PIECE_BYTES, lengths[rank] - start)]
            group._call(dist.recv, piece, group_src=rank)
            digest.update(piece.cpu().numpy())
