"""Every bad matrix is refused in one line that says what was expected, what came and where."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from matrix_cases import big, dense
from matrix_cases import engine_fixture as engine_fixture

from l0fast import _load
from l0fast.calibration.matrix import PackedMatrix, pack


def bad_csr(**changes):
    M = sp.csr_matrix(np.array([[1.0, 0, 2], [0, 3, 0]]))
    for name, (k, value) in changes.items():
        getattr(M, name)[k] = value
    return M


BAD_VALUES = [
    (bad_csr(indptr=(0, 1)), "expected an index pointer from 0 to at most 3, got 1 to 3"),
    (bad_csr(indptr=(2, 4)), "expected an index pointer from 0 to at most 3, got 0 to 4"),
    (bad_csr(indptr=(1, 5)), "expected a non-decreasing index pointer, got 3 after 5 at position 2"),
    (bad_csr(indptr=(1, -1)), "expected a non-decreasing index pointer, got -1 after 0 at position 1"),
    (bad_csr(indices=(1, 3)), "expected column indices from 0 to 2, got 3 at entry 1"),
    (bad_csr(indices=(2, -1)), "expected column indices from 0 to 2, got -1 at entry 2"),
    (bad_csr(indices=(0, 2**31 - 1)), "expected column indices from 0 to 2, got 2147483647 at entry 0"),
    (bad_csr(data=(2, np.nan)), "expected finite values, got nan at row 1, column 1"),
    (bad_csr(data=(2, -np.nan)), "expected finite values, got nan at row 1, column 1"),
    (bad_csr(data=(1, -np.inf)), "expected finite values, got -inf at row 0, column 2"),
    (bad_csr(data=(1, 1e39)), "expected values within the range of float32, got 1e+39 at row 0, column 2"),
    (sp.csr_matrix((0, 5)), r"expected at least one target and one record, got shape \(0, 5\)"),
    (np.zeros((5, 0)), r"expected at least one target and one record, got shape \(5, 0\)"),
    (sp.coo_matrix((2**31, 1)), "expected at most 2147483647 targets, got 2147483648"),
    (np.zeros(3), "expected 2 dimensions, got 1"),
    (torch.zeros(2, 2, 2), "expected 2 dimensions, got 3"),
    (sp.coo_array(np.ones(3)), "expected 2 dimensions, got 1"),
    (torch.zeros(2, 2, 2).to_sparse(1), "expected 2 dimensions, got 3"),
    (torch.ones(2, 3).to_sparse(1), r"expected two sparse dimensions, got 1 sparse and 1 dense"),
    (np.ones((2, 2), dtype=complex), "expected real values, got complex128"),
    (sp.csr_matrix(np.ones((2, 2), dtype=np.complex64)), "expected real values, got complex64"),
]


@pytest.mark.parametrize("M, message", BAD_VALUES)
def test_bad_contents(engine, M, message):
    with pytest.raises(ValueError, match=f"^M: {message}$".replace("+", r"\+")):
        pack(M)


@pytest.mark.parametrize("format, axis", [("csc", "row"), ("coo", "row"), ("coo", "column")])
@pytest.mark.parametrize("bad", [-1, 9])
def test_bad_indices_of_other_formats(engine, format, axis, bad):
    M = sp.coo_matrix(np.eye(9)).asformat(format)
    indices = M.indices if format == "csc" else getattr(M, axis[:3])
    indices[4] = bad
    with pytest.raises(ValueError, match=f"M: expected {axis} indices from 0 to 8, got {bad} at entry 4"):
        pack(M)


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("threads", [1, 5])
def test_the_first_fault_by_column_is_named(engine, format, threads):
    M = big().tocsr().asformat(format)
    rows, cols = M.tocoo().row, M.tocoo().col
    chosen = np.array([10, M.nnz // 2, M.nnz - 10])
    M.data[chosen] = np.nan
    k = chosen[np.lexsort((rows[chosen], cols[chosen]))[0]]
    with pytest.raises(ValueError, match=f"got nan at row {rows[k]}, column {cols[k]}$"):
        pack(M, threads=threads)


def test_overflow_only_by_the_sum(engine):
    at = np.zeros(2, dtype=np.int32)
    M = sp.coo_matrix((np.array([3e38, 3e38]), (at, at)), shape=(1, 1))
    with pytest.raises(
        ValueError, match=r"M: expected values within the range of float32, got 6e\+38 at row 0, column 0"
    ):
        pack(M)
    with pytest.raises(ValueError, match="range of float32"):
        pack(M, torch.float64).to(dtype=torch.float32)
    M = sp.coo_matrix((np.array([1e308, 1e308]), (at, at)), shape=(1, 1))
    with pytest.raises(ValueError, match="M: expected values within the range of float64, got inf at row 0, column 0"):
        pack(M, torch.float64)


def test_inconsistent_lengths(engine):
    M = sp.csr_matrix(dense())
    M.indptr = M.indptr[:-1]
    with pytest.raises(ValueError, match="M: expected an index pointer of 7 entries, got 6"):
        pack(M)
    M = sp.csr_matrix(dense())
    M.data = M.data[:-1]
    with pytest.raises(ValueError, match="M: expected as many indices as values"):
        pack(M)
    M = sp.csr_matrix(dense())
    M.data = M.data.reshape(-1, 1)
    with pytest.raises(ValueError, match="M: expected one-dimensional index and value arrays"):
        pack(M)
    M = sp.csr_matrix(dense())
    M.indices = M.indices.astype(np.float64)
    with pytest.raises(ValueError, match="M: expected integer indices, got float64"):
        pack(M)


def test_bad_types():
    pd = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"M: .* got DataFrame; pass sp.csr_matrix\(df.to_numpy\(\)\)$"):
        pack(pd.DataFrame(dense()))
    for bad in (None, [[1.0]], "M", np.ma.masked_array(dense())):
        with pytest.raises(TypeError, match=f"M: expected a scipy sparse matrix.*, got {type(bad).__name__}$"):
            pack(bad)
    with pytest.raises(TypeError, match="M: expected numbers, got dtype object"):
        pack(dense().astype(object))
    with pytest.raises(ValueError, match=r"dtype: expected torch.float32 or torch.float64, got torch.float16"):
        pack(dense(), torch.float16)
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="threads: expected a positive integer"):
            pack(dense(), threads=bad)


def test_the_native_module_guards_its_memory():
    host = _load.host()
    if host is None:
        pytest.skip("l0fast._host is not built")
    M = sp.csr_matrix(dense())
    good = ("csr", M.indptr.astype(np.int64), None, M.indices, M.data, *M.shape, "float64", 1)
    host.pack_columns(*good)
    bad = {0: "xyz", 1: M.indptr[:-1].astype(np.int64), 2: M.indices, 3: M.indices[:-1], 4: M.data[:-1], 5: 0, 6: 0}
    bad |= {7: "float16", 8: 0}
    for place, value in bad.items():
        with pytest.raises(ValueError, match=r"^pack_columns: "):
            host.pack_columns(*good[:place], value, *good[place + 1 :])
    with pytest.raises(ValueError, match="contiguous"):
        host.fingerprint(np.zeros((4, 4))[:, ::2])


def test_packed_matrix_refuses_tensors_of_other_kinds():
    good = pack(dense())
    parts = {"indptr": good.indptr, "rows": good.rows, "values": good.values, "shape": good.shape}
    for name, bad in (
        ("indptr", good.indptr[:-1]),
        ("indptr", good.indptr.int()),
        ("rows", good.rows.to(torch.int32)),
        ("rows", good.rows[:-1]),
        ("values", good.values.half()),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected shape"):
            PackedMatrix(**(parts | {name: bad}))
