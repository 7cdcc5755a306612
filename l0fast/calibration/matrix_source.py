"""From whatever a user calls a matrix to plain NumPy arrays, and from those to compressed columns.

The native packer (csrc/host) does the work. Where it is missing NumPy does, slower and with more memory, to the same
bits and the same messages.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from .. import _load

MOST_TARGETS = 2**31 - 1
MOST_NARROW_TARGETS = 65536
"""Up to here row indices are stored in 16 bits."""


@dataclass(frozen=True)
class Source:
    """A matrix as the caller's own arrays, contiguous and in native byte order; contents not yet checked."""

    format: str
    """csr, csc or coo."""
    indptr: np.ndarray | None
    rows: np.ndarray | None
    """int32 or int64, as cols; None for csr."""
    cols: np.ndarray | None
    """None for csc."""
    values: np.ndarray
    """float32 or float64."""
    shape: tuple[int, int]

    def __post_init__(self):
        n_targets, n_records = self.shape
        if n_targets < 1 or n_records < 1:
            raise ValueError(f"M: expected at least one target and one record, got shape {self.shape}")
        if n_targets > MOST_TARGETS:
            raise ValueError(f"M: expected at most {MOST_TARGETS} targets, got {n_targets}")
        indices = [a for a in (self.rows, self.cols) if a is not None]
        for array in (*indices, self.values, *([] if self.indptr is None else [self.indptr])):
            if array.ndim != 1:
                raise ValueError(f"M: expected one-dimensional index and value arrays, got shape {array.shape}")
        if any(a.size != self.values.size for a in indices):
            sizes = " and ".join(str(a.size) for a in indices)
            raise ValueError(f"M: expected as many indices as values ({self.values.size}), got {sizes}")
        if self.indptr is not None:
            self._check_pointer_ends(n_targets if self.format == "csr" else n_records)

    def _check_pointer_ends(self, length: int) -> None:
        if self.indptr.size != length + 1:
            raise ValueError(f"M: expected an index pointer of {length + 1} entries, got {self.indptr.size}")
        first, last = int(self.indptr[0]), int(self.indptr[-1])
        if first != 0 or not 0 <= last <= self.values.size:  # scipy allows room behind the last entry
            raise ValueError(
                f"M: expected an index pointer from 0 to at most {self.values.size}, got {first} to {last}"
            )

    @property
    def nnz(self) -> int:
        """Entries, before duplicates are summed and zeros dropped."""
        return self.values.size if self.indptr is None else int(self.indptr[-1])

    def transposed(self) -> "Source":
        """The matrix of which this is the transpose, on the same arrays."""
        turned = {"csr": "csc", "csc": "csr", "coo": "coo"}[self.format]
        return Source(turned, self.indptr, self.cols, self.rows, self.values, self.shape[::-1])

    def content_key(self, threads: int) -> tuple:
        """Equal for equal arrays, different for any change in them."""
        arrays = [a for a in (self.indptr, self.rows, self.cols, self.values) if a is not None]
        return self.format, self.shape, *((a.dtype.str, a.size, _digest(a, threads)) for a in arrays)


def _digest(array: np.ndarray, threads: int) -> bytes:
    host = _load.host()
    return host.fingerprint(array, threads) if host else hashlib.sha256(array).digest()


def source_of(M) -> Source:
    """The arrays of any matrix that :func:`l0fast.calibration.matrix.pack` takes; see there."""
    if isinstance(M, torch.Tensor):
        return _from_torch(M)
    if sp.issparse(M):
        return _from_scipy(M)
    if isinstance(M, np.ndarray) and not isinstance(M, np.ma.MaskedArray):
        return _from_dense(M)
    hint = "; pass sp.csr_matrix(df.to_numpy())" if type(M).__module__.startswith("pandas") else ""
    known = "a scipy sparse matrix, a torch tensor, a NumPy array or a PackedMatrix"
    raise TypeError(f"M: expected {known}, got {type(M).__name__}{hint}")


def _from_scipy(M) -> Source:
    _check_dimensions(M.ndim)
    if M.format == "csr":
        return _source("csr", M.indptr, None, M.indices, M.data, M.shape)
    if M.format == "csc":
        return _source("csc", M.indptr, M.indices, None, M.data, M.shape)
    M = M.tocoo()  # not tocsr, which may sum duplicates in the dtype of M
    return _source("coo", None, M.row, M.col, M.data, M.shape)


def _from_torch(M: torch.Tensor) -> Source:
    _check_dimensions(M.ndim)
    M = M.detach()
    if M.layout == torch.strided:
        return _from_dense(_numpy(M))
    if M.layout == torch.sparse_csr:
        arrays = (M.crow_indices(), None, M.col_indices(), M.values())
        return _source("csr", *map(_numpy, arrays), M.shape)
    if M.layout == torch.sparse_csc:
        arrays = (M.ccol_indices(), M.row_indices(), None, M.values())
        return _source("csc", *map(_numpy, arrays), M.shape)
    M = M.to_sparse()  # from blocks; a coordinate tensor stays what it is
    if M.sparse_dim() != 2:
        raise ValueError(f"M: expected two sparse dimensions, got {M.sparse_dim()} sparse and {M.dense_dim()} dense")
    rows, cols = _numpy(M._indices())  # indices() would insist on a coalesced tensor, a second copy of it
    return _source("coo", None, rows, cols, _numpy(M._values()), M.shape)


def _from_dense(M: np.ndarray) -> Source:
    _check_dimensions(M.ndim)
    M = sp.csr_matrix(_real(np.asarray(M)))
    return _source("csr", M.indptr, None, M.indices, M.data, M.shape)


def _numpy(tensor: torch.Tensor | None) -> np.ndarray | None:
    if tensor is None:
        return None
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.cpu().numpy()


def _check_dimensions(ndim: int) -> None:
    if ndim != 2:
        raise ValueError(f"M: expected 2 dimensions, got {ndim}")


def _source(format, indptr, rows, cols, values, shape) -> Source:
    given = [a for a in (rows, cols) if a is not None]
    for a in (*given, *([] if indptr is None else [indptr])):
        if a.dtype.kind not in "iu":
            raise ValueError(f"M: expected integer indices, got {a.dtype}")
    index = np.int32 if all(a.dtype == np.int32 for a in given) else np.int64
    rows, cols = (None if a is None else np.ascontiguousarray(a, dtype=index) for a in (rows, cols))
    indptr = None if indptr is None else np.ascontiguousarray(indptr, dtype=np.int64)
    return Source(format, indptr, rows, cols, _real(values), tuple(int(n) for n in shape))


def _real(values: np.ndarray) -> np.ndarray:
    """float32 where it holds every value of the dtype, else float64; no copy where it is one already."""
    if values.dtype.kind == "c":
        raise ValueError(f"M: expected real values, got {values.dtype}")
    if values.dtype.kind not in "biuf":
        raise TypeError(f"M: expected numbers, got dtype {values.dtype}")
    with np.errstate(over="ignore"):  # a longdouble may become inf, which is refused with its place
        return np.ascontiguousarray(values, np.float32 if np.can_cast(values.dtype, np.float32) else np.float64)


def pack_arrays(source: Source, dtype: str, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(indptr, rows, values) of the compressed columns, validated: sorted, no duplicates, no zeros, finite."""
    host = _load.host()
    if host is None:
        return _pack_with_numpy(source, np.dtype(dtype))
    s = source
    return host.pack_columns(s.format, s.indptr, s.rows, s.cols, s.values, *s.shape, dtype, threads)


def _pack_with_numpy(source: Source, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The specification of pack_columns in csrc/host/packing.cpp."""
    rows, cols = _coordinates(source)
    raw = source.values[: rows.size]
    order = np.lexsort((rows, cols))  # stable: duplicates stay in their order
    rows, cols, raw = rows[order], cols[order], raw[order]
    first = np.ones(rows.size, dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1])
    entry = np.cumsum(first) - 1
    rows, cols = rows[first], cols[first]
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.bincount(entry, weights=raw, minlength=rows.size)  # in double, one after the other
        values = sums.astype(dtype)
    if not np.isfinite(values).all():
        k = int(np.argmin(np.isfinite(values)))
        parts = raw[entry == k]
        bad = parts[~np.isfinite(parts)]
        expected = "finite values" if bad.size else f"values within the range of {dtype}"
        got = bad[0] if bad.size else sums[k]
        raise ValueError(f"M: expected {expected}, got {got:g} at row {rows[k]}, column {cols[k]}")
    kept = values != 0
    indptr = np.zeros(source.shape[1] + 1, dtype=np.int64)
    np.cumsum(np.bincount(cols[kept], minlength=source.shape[1]), out=indptr[1:])
    row_dtype = np.uint16 if source.shape[0] <= MOST_NARROW_TARGETS else np.int32
    return indptr, rows[kept].astype(row_dtype), values[kept]


def _coordinates(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Checked row and column of every entry."""
    rows, cols, indptr = source.rows, source.cols, source.indptr
    if indptr is not None:
        lengths = np.diff(indptr)
        if (lengths < 0).any():
            i = int(np.argmax(lengths < 0)) + 1
            raise ValueError(
                f"M: expected a non-decreasing index pointer, got {indptr[i]} after {indptr[i - 1]} at position {i}"
            )
        major = np.repeat(np.arange(lengths.size), lengths)
        rows = major if rows is None else rows[: major.size]
        cols = major if cols is None else cols[: major.size]
    for axis, indices, limit in (("row", rows, source.shape[0]), ("column", cols, source.shape[1])):
        outside = (indices < 0) | (indices >= limit)
        if outside.any():
            k = int(np.argmax(outside))
            raise ValueError(f"M: expected {axis} indices from 0 to {limit - 1}, got {indices[k]} at entry {k}")
    return rows, cols
