"""The one resident copy of a calibration matrix: compressed columns, validated once, small.

A float32 matrix of up to 65,536 targets takes 6 bytes a nonzero and 8 a record.
"""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from .matrix_source import MOST_NARROW_TARGETS, Source, pack_arrays
from .transfer import to_cuda

_CHUNK = 1 << 22
"""Nonzeros looked at together where a temporary is needed."""


@dataclass(frozen=True, eq=False, repr=False)
class PackedMatrix:
    """M [n_targets, n_records] in compressed columns: made by :func:`pack`, read by the kernels, changed by nobody.

    Column i holds the rows ``rows[indptr[i]:indptr[i + 1]]``, increasing, with their values; no value is zero.
    """

    indptr: torch.Tensor
    """[n_records + 1] int64."""
    rows: torch.Tensor
    """[nnz] uint16 for up to 65,536 targets, else int32."""
    values: torch.Tensor
    """[nnz] float32 or float64."""
    shape: tuple[int, int]
    """(n_targets, n_records)."""

    def __post_init__(self):
        row_dtype = torch.uint16 if self.n_targets <= MOST_NARROW_TARGETS else torch.int32
        nnz = self.values.numel()
        expected = {
            "indptr": (self.indptr, (self.n_records + 1,), (torch.int64,)),
            "rows": (self.rows, (nnz,), (row_dtype,)),
            "values": (self.values, (nnz,), (torch.float32, torch.float64)),
        }
        for name, (tensor, shape, dtypes) in expected.items():
            if tuple(tensor.shape) != shape or tensor.dtype not in dtypes or tensor.device != self.values.device:
                wanted = f"shape {shape}, {' or '.join(map(str, dtypes))} on {self.values.device}"
                came = f"shape {tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}"
                raise ValueError(f"{name}: expected {wanted}, got {came}")

    @property
    def n_targets(self) -> int:
        return self.shape[0]

    @property
    def n_records(self) -> int:
        return self.shape[1]

    @property
    def nnz(self) -> int:
        return self.values.numel()

    @property
    def nbytes(self) -> int:
        return self.indptr.nbytes + self.rows.nbytes + self.values.nbytes

    @property
    def bytes_per_nonzero(self) -> float:
        return self.nbytes / max(self.nnz, 1)

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def column_nnz(self) -> torch.Tensor:
        """Nonzeros of each record, int64 [n_records]."""
        return self.indptr.diff()

    def row_counts(self) -> torch.Tensor:
        """Nonzeros of each target, int64 [n_targets]."""
        counts = torch.zeros(self.n_targets, dtype=torch.int64, device=self.device)
        for rows in self.rows.split(_CHUNK):
            counts += torch.bincount(rows.to(torch.int32), minlength=self.n_targets)
        return counts

    def columns(self, indices: torch.Tensor) -> "PackedMatrix":
        """The matrix [n_targets, k] of the records named, in that order, on the same device.

        Args:
            indices: int64 [k], each in [0, n_records), k at least 1.

        Raises:
            ValueError: another dtype or shape, none at all, or one out of range.
        """
        if indices.dtype != torch.int64 or indices.dim() != 1 or not indices.numel():
            came = f"{indices.dtype} of shape {tuple(indices.shape)}"
            raise ValueError(f"indices: expected a vector of at least one int64, got {came}")
        indices = indices.to(self.device)
        if int(indices.min()) < 0 or int(indices.max()) >= self.n_records:
            span = f"{int(indices.min())} to {int(indices.max())}"
            raise ValueError(f"indices: expected records from 0 to {self.n_records - 1}, got {span}")
        starts, counts = self.indptr[indices], self.column_nnz[indices]
        indptr = torch.zeros(len(indices) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(counts, 0, out=indptr[1:])
        nnz = int(indptr[-1])
        # Indexing by uint16 tensors' rows is not there in every torch; bits are bits.
        narrow = self.rows.view(torch.int16) if self.rows.dtype == torch.uint16 else self.rows
        rows, values = narrow.new_empty(nnz), self.values.new_empty(nnz)
        shift = starts - indptr[:-1]
        for first in range(0, nnz, _CHUNK):  # place j of the result comes from place j + shift of its column
            here = torch.arange(first, min(first + _CHUNK, nnz), device=self.device)
            here += shift[torch.searchsorted(indptr, here, right=True) - 1]
            rows[first : first + _CHUNK] = narrow[here]
            values[first : first + _CHUNK] = self.values[here]
        return PackedMatrix(indptr, rows.view(self.rows.dtype), values, (self.n_targets, len(indices)))

    def to(self, device=None, dtype: torch.dtype | None = None) -> "PackedMatrix":
        """The same matrix elsewhere or in another precision; itself where nothing changes.

        From the CPU to a CUDA device it goes in pieces: on top of the matrix at most 2 x 64 MB of (pinned) host memory.

        Raises:
            ValueError: a value is too large for float32, or dtype is none of float32 and float64.
        """
        dtype = self.dtype if dtype is None else checked_dtype(dtype)
        device = self.device if device is None else exact_device(device)
        if (dtype, device) == (self.dtype, self.device):
            return self
        if dtype == torch.float32 and self.dtype == torch.float64:  # values may overflow, or become zeros to drop
            indptr, rows, values = (t.cpu().numpy() for t in (self.indptr, self.rows, self.values))
            source = Source("csc", indptr, rows.astype(np.int32), None, values, self.shape)
            return pack_source(source, dtype, torch.get_num_threads()).to(device)
        arrays = [self.indptr, self.rows, self.values]
        if device.type == "cuda" and self.device.type == "cpu":
            return PackedMatrix(*to_cuda(arrays, [self.indptr.dtype, self.rows.dtype, dtype], device), self.shape)
        return PackedMatrix(*(x.to(device) for x in arrays[:2]), self.values.to(device, dtype), self.shape)

    def sha256(self) -> str:
        """Name of the content: the same for the same matrix, from whatever format it was packed."""
        return self._sha256

    @functools.cached_property
    def _sha256(self) -> str:
        content = hashlib.sha256(f"l0fast.PackedMatrix {self.shape} {self.dtype}".encode())
        for tensor in (self.indptr, self.rows, self.values):
            content.update(tensor.cpu().numpy())
        return content.hexdigest()

    def to_scipy(self) -> sp.csc_matrix:
        """A copy; scipy chooses the width of the indices."""
        indptr, rows, values = (t.cpu().numpy() for t in (self.indptr, self.rows, self.values))
        return sp.csc_matrix((values.copy(), rows.astype(np.int32), indptr.copy()), shape=self.shape)

    def __reduce__(self):
        # As int16: torch 2.13 writes a uint16 tensor into a pickle that it cannot read.
        rows = self.rows.view(torch.int16) if self.rows.dtype == torch.uint16 else self.rows
        return _unpickle, (self.indptr, rows, self.values, self.shape)

    def __repr__(self) -> str:
        kind = f"{self.dtype} with {self.rows.dtype} rows".replace("torch.", "")
        return (
            f"PackedMatrix({self.n_targets} x {self.n_records}, {self.nnz} nonzeros, {kind}, "
            f"{self.nbytes / 1e6:.1f} MB, {self.device})"
        )


def _unpickle(indptr, rows, values, shape) -> PackedMatrix:
    return PackedMatrix(indptr, rows.view(torch.uint16) if rows.dtype == torch.int16 else rows, values, shape)


def pack_source(source: Source, dtype: torch.dtype, threads: int) -> PackedMatrix:
    arrays = pack_arrays(source, str(dtype).removeprefix("torch."), threads)
    return PackedMatrix(*map(torch.from_numpy, arrays), source.shape)


def checked_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
    return dtype


def exact_device(device) -> torch.device:
    """With its number (cuda:0, not cuda), as tensors report it."""
    return torch.empty(0, device=device).device
