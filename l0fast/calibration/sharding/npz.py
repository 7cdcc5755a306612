"""A process's columns of a matrix in scipy's .npz, without the others."""

import zipfile
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from .bounds import Shard, shard_bounds

PIECE = 1 << 22
"""Entries read together where others' have to be passed over: temporaries of about 100 MB."""


class Member:
    """One array of an .npz, read from front to back. An uncompressed one is mapped: only what is asked for is read."""

    def __init__(self, archive: zipfile.ZipFile, path, name: str):
        self._path, self._stream = path, archive.open(f"{name}.npy")
        version = np.lib.format.read_magic(self._stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, _, self.dtype = read(self._stream)
        if self.dtype.hasobject:
            raise ValueError(f"array {name} holds Python objects")
        self._at, self._map = 0, None
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type == zipfile.ZIP_STORED and len(self.shape) == 1 and self.shape[0]:
            self._map = np.memmap(path, self.dtype, "r", self._data_offset(info), self.shape)

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        """Where the array begins in the file: the local header may be longer than the one in the directory."""
        with open(self._path, "rb") as file:
            file.seek(info.header_offset + 26)
            name, extra = np.frombuffer(file.read(4), dtype="<u2").tolist()
        return info.header_offset + 30 + name + extra + self._stream.tell()

    def read(self, first: int, end: int) -> np.ndarray:
        """Entries first .. end - 1; what lies before them is passed over, and gone."""
        if self._map is not None:
            return np.array(self._map[first:end])
        self._take((first - self._at) * self.dtype.itemsize, keep=False)
        content = self._take((end - first) * self.dtype.itemsize, keep=True)
        self._at = end
        return np.frombuffer(content, dtype=self.dtype)

    def all(self) -> np.ndarray:
        if not self.shape:
            return np.frombuffer(self._take(self.dtype.itemsize, keep=True), dtype=self.dtype)[0]
        return self.read(0, self.shape[0])

    def pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, self.shape[0], PIECE):
            yield first, self.read(first, min(first + PIECE, self.shape[0]))

    def _take(self, count: int, keep: bool) -> bytearray:
        content, left = bytearray(), count
        while left:
            block = self._stream.read(min(left, 1 << 24))
            if not block:
                raise ValueError("an array ends too early")
            left -= len(block)
            if keep:
                content += block
        return content


def read_columns(path, rank: int, world_size: int, transposed: bool = False) -> tuple[sp.sparray, Shard] | None:
    """The columns of one process, cut as :func:`shard_bounds` does, and which they are.

    Of compressed columns a process reads all of indptr (8 bytes a record) and its own part of the rest, going through
    what lies before it where the file is compressed. Of compressed rows it goes through all column indices twice and
    all values once, in pieces, and keeps its own.

    Args:
        path: an .npz of scipy.sparse.save_npz, or one of ``data, indices, indptr, shape`` as compressed rows.
        transposed: the file has records as rows.

    Returns:
        (M [n_targets, shard.size] in the file's own layout, shard), or None where the file has another layout.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile, zlib.error: a damaged file, or fewer records than processes.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        layout = "csr"
        if "format" in names:
            layout = Member(archive, path, "format").all()
            layout = layout.decode() if isinstance(layout, bytes) else str(layout)
        if layout not in ("csr", "csc"):
            return None
        shape = tuple(int(n) for n in Member(archive, path, "shape").all())
        if transposed:
            layout, shape = {"csr": "csc", "csc": "csr"}[layout], shape[::-1]
        indptr = Member(archive, path, "indptr").all()
        _check_pointer(indptr, shape[layout == "csc"], Member(archive, path, "indices").shape[0])

        def member(name: str) -> Member:
            return Member(archive, path, name)

        if layout == "csc":
            return _from_columns(member, indptr, shape, rank, world_size)
        return _from_rows(member, indptr, shape, rank, world_size)


def _check_pointer(indptr: np.ndarray, length: int, entries: int) -> None:
    if indptr.dtype.kind not in "iu" or indptr.shape != (length + 1,):
        raise ValueError(f"expected an index pointer of {length + 1} integers, got {indptr.dtype} {indptr.shape}")
    if indptr[0] != 0 or indptr[-1] > entries or (indptr[1:] < indptr[:-1]).any():
        raise ValueError(f"expected an index pointer that rises from 0 to at most {entries}")


def _check_range(indices: np.ndarray, limit: int) -> None:
    if indices.dtype.kind not in "iu":
        raise ValueError(f"expected integer indices, got {indices.dtype}")
    if indices.size and not (indices.min() >= 0 and indices.max() < limit):
        raise ValueError(f"expected indices from 0 to {limit - 1}, got {indices.min()} to {indices.max()}")


def _from_columns(member, indptr, shape, rank: int, world_size: int) -> tuple[sp.sparray, Shard]:
    shard = shard_bounds(indptr, world_size)[rank]
    own = indptr[shard.first : shard.end + 1]
    first, end = int(own[0]), int(own[-1])
    indices, data = member("indices").read(first, end), member("data").read(first, end)
    _check_range(indices, shape[0])
    return sp.csc_array((data, indices, own - own[0]), shape=(shape[0], shard.size)), shard


def _from_rows(member, indptr, shape, rank: int, world_size: int) -> tuple[sp.sparray, Shard]:
    entries = int(indptr[-1])
    counts = np.zeros(shape[1] + 1, dtype=np.int64)
    for first, columns in member("indices").pieces():
        columns = columns[: max(entries - first, 0)]
        _check_range(columns, shape[1])
        counts[1:] += np.bincount(columns, minlength=shape[1])
    shard = shard_bounds(np.cumsum(counts, out=counts), world_size)[rank]
    indices, data = member("indices"), member("data")
    kept_columns, kept_values = [np.zeros(0, indices.dtype)], [np.zeros(0, data.dtype)]
    kept_rows = np.zeros(shape[0] + 1, dtype=np.int64)
    for (first, columns), (_, values) in zip(indices.pieces(), data.pieces(), strict=True):
        columns = columns[: max(entries - first, 0)]
        here = np.flatnonzero((columns >= shard.first) & (columns < shard.end))
        kept_columns.append((columns[here] - shard.first).astype(columns.dtype))
        kept_values.append(values[here])
        rows = np.searchsorted(indptr, here + first, side="right")  # row r counts at r + 1
        kept_rows += np.bincount(rows, minlength=shape[0] + 1)
    arrays = (np.concatenate(kept_values), np.concatenate(kept_columns), np.cumsum(kept_rows))
    return sp.csr_array(arrays, shape=(shape[0], shard.size)), shard
