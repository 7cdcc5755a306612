"""How many bytes a calibration takes on a device, told before anything is packed. Every formula is here."""

from dataclasses import dataclass

import torch

from .matrix_source import MOST_NARROW_TARGETS

RECORD_ARRAYS = 7
"""Of the values' dtype, for each record: two parameters, four moments of Adam, the gates of an epoch."""

TARGET_DOUBLES = 4
"""For each target: target, scale, omega and tolerance. The slopes of the loss have the values' dtype."""

WORKSPACE_PER_TARGET = 2 * 8 + 4
"""Totals in 64-bit fixed point, of an epoch and of the next one, and the row's exponent (csrc/cuda/columns.cuh)."""

WORKSPACE_PER_RECORD = 8
"""Where a long column's chunks begin; taken only where there is one."""

LONG_COLUMN = 2048
WORKSPACE_PER_CHUNK = 3 * 8
"""Columns of more nonzeros are cut into chunks of that many: column, first nonzero and gathered sum of each."""

FIXED_BYTES = 64 << 20
"""Partial sums, reports, graphs, and what the allocator rounds up."""


@dataclass(frozen=True)
class DeviceBytes:
    """What a fit keeps in the memory of a device other than the CPU."""

    matrix: int
    state: int
    targets: int
    workspace: int

    @property
    def total(self) -> int:
        return self.matrix + self.state + self.targets + self.workspace

    def __str__(self) -> str:
        parts = ("matrix", "state", "targets", "workspace")
        return ", ".join(f"{part} {size_text(getattr(self, part))}" for part in parts if getattr(self, part))


def matrix_bytes(nnz: int, n_records: int, n_targets: int, value_bytes: int = 4) -> int:
    """Of a PackedMatrix: ``8 (n + 1) + nnz (2 or 4 + value_bytes)``, 2 for up to 65,536 targets.

    nnz before packing is an upper bound: duplicates are summed and zeros dropped.
    """
    return 8 * (n_records + 1) + nnz * ((2 if n_targets <= MOST_NARROW_TARGETS else 4) + value_bytes)


def matrix_only(nnz: int, n_records: int, n_targets: int, value_bytes: int = 4) -> DeviceBytes:
    """A packed matrix and nothing else."""
    return DeviceBytes(matrix_bytes(nnz, n_records, n_targets, value_bytes), 0, 0, 0)


def fit_bytes(nnz: int, n_records: int, n_targets: int, value_bytes: int = 4) -> DeviceBytes:
    """A whole fit.

    Args:
        nnz, n_records, n_targets: of the matrix.
        value_bytes: 4 for float32, 8 for float64.

    Returns:
        matrix as :func:`matrix_bytes`; state ``7 value_bytes n``; targets ``(4 x 8 + value_bytes) m``; workspace
        ``20 m + 8 n + 24 chunks`` and 64 MB, with chunks at most twice nnz / 2048.
    """
    chunks = 2 * -(-nnz // LONG_COLUMN)  # a column just above the limit has two
    return DeviceBytes(
        matrix=matrix_bytes(nnz, n_records, n_targets, value_bytes),
        state=RECORD_ARRAYS * value_bytes * n_records,
        targets=(TARGET_DOUBLES * 8 + value_bytes) * n_targets,
        workspace=WORKSPACE_PER_TARGET * n_targets
        + WORKSPACE_PER_RECORD * n_records
        + WORKSPACE_PER_CHUNK * chunks
        + FIXED_BYTES,
    )


def free_bytes(device: torch.device) -> int | None:
    """What can still be allocated there; None for the CPU and where there is no GPU.

    What torch holds but does not use counts as free.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def require(needed: DeviceBytes, device: torch.device) -> None:
    """Raises MemoryError where a device has less than that; of the CPU nothing is asked."""
    free = free_bytes(device)
    if free is not None and free < needed.total:
        raise MemoryError(
            f"device: expected {size_text(needed.total)} free on {device} ({needed}), got {size_text(free)}; "
            "take another device, fewer targets or records, or device='cpu'"
        )


def size_text(count: int) -> str:
    """Bytes as '12.3 MB', decimal units."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
