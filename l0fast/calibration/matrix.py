"""From whatever a user calls a matrix to a :class:`.packed_matrix.PackedMatrix`, and the last one kept."""

import torch

from . import memory
from .matrix_source import Source, source_of
from .packed_matrix import PackedMatrix, checked_dtype, exact_device, pack_source

ORIENTATIONS = ("targets_by_records", "records_by_targets")


def pack(
    M,
    dtype: torch.dtype = torch.float32,
    device="cpu",
    threads: int | None = None,
    *,
    orient: str = "targets_by_records",
) -> PackedMatrix:
    """Packs a matrix into compressed columns. Duplicates are summed in double and rounded once; zeros are dropped.

    The result has the same bits for every format, order of entries within a row or column, and number of threads.
    Only duplicates are summed in the order in which they come. Indices and values in int32 or int64 and float32 or
    float64 are read in place; packing compressed rows needs at most 0.6 of the result's size on top of it.

    Args:
        M: matrix [n_targets, n_records]: any scipy sparse matrix or array, any torch sparse layout, a dense NumPy
            array or torch tensor, or a PackedMatrix.
        dtype: of the values, torch.float32 or torch.float64.
        device: where the result lives; packing itself takes place on the CPU. On the way to a CUDA device the host
            holds the packed matrix and at most 2 x 64 MB of pinned memory.
        threads: number of threads, torch's by default.
        orient: what rows and columns of M are: 'targets_by_records', or 'records_by_targets' for a matrix
            [n_records, n_targets], whose arrays are read as they are.

    Raises:
        TypeError: M is something else, or holds no numbers.
        ValueError: M is empty, complex, not finite (also after rounding to dtype) or inconsistent; an unknown orient,
            or another than the default with a PackedMatrix.
        MemoryError: the CUDA device has not enough free memory for it; raised before packing begins.
    """
    dtype, device, threads = checked_dtype(dtype), exact_device(device), _checked_threads(threads)
    if orient not in ORIENTATIONS:
        raise ValueError(f"orient: expected {' or '.join(ORIENTATIONS)}, got {orient!r}")
    turned = orient != ORIENTATIONS[0]
    if isinstance(M, PackedMatrix):
        if turned:
            raise ValueError("orient: a PackedMatrix is targets by records already, got 'records_by_targets'")
        return _packed(M, dtype, device, threads)
    if not turned:
        return _packed(source_of(M), dtype, device, threads)
    try:
        return _packed(source_of(M).transposed(), dtype, device, threads)
    except ValueError as error:
        raise ValueError(f"{error} (rows are targets, columns records, as orient says)") from None


class MatrixCache:
    """Holds the last packed matrix, found again by its content: a matrix changed in place is packed anew.

    Copies and pickles of a cache are empty: what it holds can always be made again.
    """

    def __init__(self):
        self.clear()

    def get(self, M, dtype: torch.dtype = torch.float32, device="cpu", fitting: bool = False) -> PackedMatrix:
        """As :func:`pack`; packs only if M, dtype or device differ from those of the last call.

        fitting: the device must have room for a fit, too.
        """
        dtype, device, threads = checked_dtype(dtype), exact_device(device), torch.get_num_threads()
        if isinstance(M, PackedMatrix):
            return _packed(M, dtype, device, threads, fitting)
        source = source_of(M)
        key = (source.content_key(threads), dtype, device)
        if key != self._key:
            self.clear()  # first: two matrices may not fit
            self._packed = _packed(source, dtype, device, threads, fitting)
            self._key = key
        return self._packed

    @property
    def held(self) -> PackedMatrix | None:
        """The last matrix, if there is one."""
        return self._packed

    def clear(self) -> None:
        self._key = self._packed = None

    def __reduce__(self):
        return MatrixCache, ()


def _packed(M: PackedMatrix | Source, dtype, device: torch.device, threads: int, fitting=False) -> PackedMatrix:
    """On the device, if its memory allows it: that is asked first, since packing may take long."""
    if not (isinstance(M, PackedMatrix) and M.device == device):
        n_targets, n_records = M.shape
        estimate = memory.fit_bytes if fitting else memory.matrix_only
        memory.require(estimate(M.nnz, n_records, n_targets, dtype.itemsize), device)
    return M.to(device, dtype) if isinstance(M, PackedMatrix) else pack_source(M, dtype, threads).to(device)


def _checked_threads(threads: int | None) -> int:
    if threads is None:
        return torch.get_num_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads: expected a positive integer, got {threads!r}")
    return threads
