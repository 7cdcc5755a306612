"""One more target during a run: the total of the weights."""

from dataclasses import replace

import torch
from torch import Tensor

from .. import reference
from . import memory
from .matrix import PackedMatrix
from .matrix_source import MOST_NARROW_TARGETS
from .objective import Objective

_CHUNK = 1 << 22
"""Nonzeros written together."""

SHARE = 1.0
"""omega of the total: a miss of it by x costs so many times what all targets missed by x cost. 0.1 left more to the
projection at the end than the targets bear; 10 and more kept small problems from converging."""


def with_mass_row(matrix: PackedMatrix, objective: Objective, total: float) -> tuple[PackedMatrix, Objective]:
    """Matrix [n_targets + 1, n] and objective whose last target is ``sum w = total``, missed in units of the total."""
    zeros = torch.zeros_like(objective.targets)
    whole = reference.data_loss(
        *(zeros, objective.targets, objective.scales, objective.omega, None, objective.rho, objective.cap),
    )
    price = reference.data_loss(
        *(zeros.new_zeros(1), *(zeros.new_ones(1) for _ in range(3)), None, objective.rho, objective.cap),
    )
    omega = SHARE * (whole if whole > 0 else objective.omega.sum()) / price

    def longer(x: Tensor | None, value) -> Tensor | None:
        return None if x is None else torch.cat([x, x.new_tensor([float(value)])])

    aim = replace(
        objective,
        targets=longer(objective.targets, total),
        scales=longer(objective.scales, total),
        omega=longer(objective.omega, omega),
        tolerances=longer(objective.tolerances, 0.0),
    )
    return with_row(matrix, torch.ones(matrix.n_records, dtype=matrix.dtype, device=matrix.device)), aim


def with_row(matrix: PackedMatrix, values: Tensor) -> PackedMatrix:
    """The matrix with one more, last row [n_records] that is nowhere 0.

    Raises:
        MemoryError: a CUDA device has no room for this second matrix.
    """
    wide = matrix.n_targets + 1 > MOST_NARROW_TARGETS
    indptr = matrix.indptr + torch.arange(matrix.n_records + 1, device=matrix.device)
    # Indexing by uint16 tensors' rows is not there in every torch: int16 has the same bits.
    source = matrix.rows.view(torch.int16) if matrix.rows.dtype == torch.uint16 else matrix.rows
    size = matrix.nnz + matrix.n_records
    memory.require(
        memory.matrix_only(size, matrix.n_records, matrix.n_targets + 1, matrix.dtype.itemsize), matrix.device
    )
    rows = torch.empty(size, dtype=torch.int32 if wide else torch.int16, device=matrix.device)
    result = matrix.values.new_empty(size)
    last = matrix.n_targets if wide else torch.tensor(matrix.n_targets).to(torch.uint16).view(torch.int16).item()
    for first in range(0, size, _CHUNK):
        here = torch.arange(first, min(first + _CHUNK, size), device=matrix.device)
        column = torch.searchsorted(indptr, here, right=True) - 1
        new = here == indptr[column + 1] - 1
        old = (here - column).clamp(max=max(matrix.nnz - 1, 0))
        part = slice(first, first + len(here))
        if matrix.nnz:
            rows[part], result[part] = _widened(source[old], wide and source.dtype == torch.int16), matrix.values[old]
        rows[part][new] = last
        result[part][new] = values[column[new]]
    rows = rows if wide else rows.view(torch.uint16)
    return PackedMatrix(indptr, rows, result, (matrix.n_targets + 1, matrix.n_records))


def _widened(rows: Tensor, wide: bool) -> Tensor:
    return rows.to(torch.int32) & 0xFFFF if wide else rows
