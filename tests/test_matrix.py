"""Packing: formats, dtypes, duplicates, threads, and what a PackedMatrix knows. See also test_matrix_*.py."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from matrix_cases import SCIPY_FORMATS, assert_holds, assert_same_bits, big, dense, rows_of
from matrix_cases import engine_fixture as engine_fixture

from l0fast import _load
from l0fast.calibration.matrix import pack

TORCH_LAYOUTS = ["strided", "coo", "csr", "csc", "bsr", "bsc"]


def to_torch(M: np.ndarray, layout: str):
    M = torch.from_numpy(M)
    if layout == "strided":
        return M
    if layout == "coo":
        return M.to_sparse()
    block = (2, 3) if M.shape[0] % 2 == 0 else (3, 2)
    return getattr(M, f"to_sparse_{layout}")(*[block] * layout.startswith("bs"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("value", [np.float32, np.float64])
@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_formats_and_types(engine, format, value, index, dtype):
    M = sp.coo_matrix(dense().astype(value)).asformat(format)
    for name in ("indptr", "indices", "row", "col"):
        if hasattr(M, name):
            setattr(M, name, getattr(M, name).astype(index))
    packed = pack(M, dtype)
    assert packed.dtype == dtype and packed.rows.dtype == torch.uint16 and packed.indptr.dtype == torch.int64
    assert_holds(packed, dense())


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("format", SCIPY_FORMATS)
def test_every_scipy_format(engine, format, array):
    kind = getattr(sp, f"{format}_{'array' if array else 'matrix'}")
    assert_same_bits(pack(kind(dense())), pack(dense()))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "format", [*SCIPY_FORMATS, "strided", "torch coo", "torch csr", "torch csc", "torch bsr", "bsc"]
)
def test_records_by_targets_is_the_transpose(engine, format):
    M = np.ascontiguousarray(dense().T)  # [9, 6]
    M = sp.coo_matrix(M).asformat(format) if format in SCIPY_FORMATS else to_torch(M, format.split()[-1])
    assert_same_bits(pack(M, orient="records_by_targets"), pack(dense()))


def test_orientation_is_never_guessed():
    with pytest.raises(ValueError, match="orient: expected targets_by_records or records_by_targets, got 'records'"):
        pack(dense(), orient="records")
    with pytest.raises(ValueError, match="orient: a PackedMatrix is targets by records already"):
        pack(pack(dense()), orient="records_by_targets")
    with pytest.raises(ValueError, match=r"got nan at row 2, column 1 \(rows are targets"):
        M = dense().T.copy()
        M[1, 2] = np.nan
        pack(M, orient="records_by_targets")


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", TORCH_LAYOUTS)
def test_every_torch_layout(engine, layout):
    assert_same_bits(pack(to_torch(dense(), layout)), pack(dense()))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_torch_uncoalesced_and_requires_grad(engine):
    at = torch.tensor([[1, 0, 1], [2, 0, 2]])
    M = torch.sparse_coo_tensor(at, torch.tensor([1.0, 5.0, 2.5], requires_grad=True), (2, 3))
    assert_holds(pack(M), np.array([[5, 0, 0], [0, 0, 3.5]]))


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", ">f4", ">f8", ">i4", "g"])
def test_other_real_dtypes(engine, dtype):
    values = abs(dense() * 8).astype(dtype) if dtype != "?" else dense() != 0
    # scipy has no half-precision or byte-swapped matrix of its own: such data can be set.
    M = sp.csr_matrix(values.astype(np.float64))
    M.data = M.data.astype(dtype)
    assert_holds(pack(M), values.astype(np.float64))
    assert_holds(pack(values), values.astype(np.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_other_torch_dtypes(engine, dtype):
    M = torch.from_numpy(dense() * 8).to(dtype)
    for given in (M, M.to_sparse()):
        assert_holds(pack(given), M.double().numpy())


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_unsorted_duplicates_and_zeros(engine, format):
    at = (np.array([3, 1, 0, 3, 2, 2, 1, 3]), np.array([1, 1, 0, 1, 2, 2, 0, 1]))
    values = np.array([1.0, 2.0, 0.0, 0.5, 4.0, -4.0, 3.0, 0.25])
    M = sp.coo_matrix((values, at), shape=(4, 3))
    if format != "coo":
        major, minor = at if format == "csr" else at[::-1]
        order = np.argsort(major, kind="stable")[::-1]
        order = order[np.argsort(major[order], kind="stable")]  # within a row: not in order
        indptr = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=4 if format == "csr" else 3))])
        M = getattr(sp, f"{format}_matrix")((values[order], minor[order], indptr), shape=(4, 3))
    before = copy.deepcopy(M)
    assert_holds(pack(M), np.array([[0, 0, 0], [3, 2, 0], [0, 0, 0], [0, 1.75, 0]]))
    assert M.nnz == 8 and np.array_equal(M.data, before.data)  # the caller's matrix stays as it is


def test_duplicates_are_summed_in_double(engine):
    at = np.zeros(3, dtype=np.int32)
    M = sp.coo_matrix((np.array([1.0, 2.0**-24, 2.0**-24], dtype=np.float32), (at, at)), shape=(1, 1))
    assert pack(M).values.tolist() == [1 + 2.0**-23]  # in float32 each small one would be lost
    M = sp.coo_matrix((np.array([1e39, 1.0, -1e39]), (at, at)), shape=(1, 1))
    assert pack(M).nnz == 0  # 1 is lost in double, and the sum fits where its parts do not


def test_values_that_round_to_zero_are_dropped(engine):
    M = np.array([[1e-60, 2.0]])
    assert pack(M).nnz == 1 and pack(M, torch.float64).nnz == 2
    assert pack(M, torch.float64).to(dtype=torch.float32).nnz == 1
    assert pack(np.array([[1e-45]])).nnz == 1  # subnormal


@pytest.mark.parametrize("m, dtype", [(65535, torch.uint16), (65536, torch.uint16), (65537, torch.int32)])
def test_row_width(engine, m, dtype):
    M = sp.csr_matrix(([1.0, 2.0], ([0, m - 1], [0, 1])), shape=(m, 3))
    packed = pack(M)
    assert packed.rows.dtype == dtype
    assert packed.rows.to(torch.int64).tolist() == [0, m - 1]
    assert packed.row_counts().nonzero().flatten().tolist() == [0, m - 1]


def test_empty_columns_and_no_nonzeros(engine):
    assert pack(sp.csr_matrix((3, 4))).indptr.tolist() == [0] * 5
    M = sp.csr_matrix(([1.0], ([1], [2])), shape=(3, 5))
    assert pack(M).indptr.tolist() == [0, 0, 0, 1, 1, 1]
    assert pack(np.array([[2.5]])).to_scipy().toarray() == 2.5


def test_room_behind_the_last_entry(engine):
    M = sp.csr_matrix(dense())
    longer = copy.copy(M)
    longer.data, longer.indices = np.append(M.data, np.nan), np.append(M.indices, 7777).astype(np.int32)
    assert_same_bits(pack(longer), pack(M))


def test_strided_read_only_and_swapped_arrays(engine):
    M = sp.csr_matrix(dense())
    odd = copy.copy(M)
    odd.data, odd.indices = np.repeat(M.data, 2)[::2], np.repeat(M.indices, 2)[::2]
    assert_same_bits(pack(odd), pack(M))
    odd.indptr, odd.indices = M.indptr.astype(">i4"), M.indices.astype(">i8")
    assert_same_bits(pack(odd), pack(M))
    for a in (M.data, M.indices, M.indptr):
        a.flags.writeable = False
    assert_same_bits(pack(M), pack(odd))
    assert_same_bits(pack(dense()[:, ::-1]), pack(sp.csc_matrix(dense()[:, ::-1])))
    assert_same_bits(pack(np.asfortranarray(dense())), pack(dense()))
    assert_same_bits(pack(torch.from_numpy(dense().T.copy()).T), pack(dense()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_on_any_number_of_threads(dtype, monkeypatch):
    coordinates = big()
    by_columns = sp.csc_matrix(coordinates.astype(np.float64))  # scipy sums here
    for M in (coordinates, rows_of(coordinates, True), rows_of(coordinates, False), by_columns):
        one = pack(M, dtype, threads=1)
        for threads in (2, 3, 8, 64):
            assert_same_bits(pack(M, dtype, threads=threads), one)
        with monkeypatch.context() as patch:
            patch.setattr(_load, "host", lambda: None)
            assert_same_bits(pack(M, dtype), one)


def test_packed_matrix_facts():
    M = sp.csr_matrix(np.array([[1.0, 0, 2], [0, 0, 3]]))
    packed = pack(M)
    assert (packed.n_targets, packed.n_records, packed.nnz) == (*packed.shape, 3) == (2, 3, 3)
    assert packed.nbytes == 4 * 8 + 3 * 6 and packed.bytes_per_nonzero == packed.nbytes / 3
    assert packed.row_counts().tolist() == [2, 1] and packed.column_nnz.tolist() == [1, 0, 2]
    assert packed.device.type == "cpu" and packed.dtype == torch.float32
    assert repr(packed) == "PackedMatrix(2 x 3, 3 nonzeros, float32 with uint16 rows, 0.0 MB, cpu)"
    packed.to_scipy().data[:] = 9  # a copy
    assert packed.values.tolist() == [1, 2, 3]


def test_to_and_pack_of_a_packed_matrix():
    single = pack(dense())
    assert single.to() is single and pack(single) is single and single.to("cpu", torch.float32) is single
    double = pack(single, torch.float64)
    assert_same_bits(double, pack(dense(), torch.float64))
    assert_same_bits(double.to(dtype=torch.float32), single)
    assert single.to("meta").device.type == "meta"
    assert_same_bits(pickle.loads(pickle.dumps(single)), single)
    assert_same_bits(copy.deepcopy(single), single)


def test_sha256_names_the_content():
    names = {pack(sp.csr_matrix(dense()).asformat(f)).sha256() for f in SCIPY_FORMATS}
    assert len(names) == 1
    changed = dense()
    changed[0, 0] += 1
    others = {pack(changed).sha256(), pack(dense(), torch.float64).sha256(), pack(dense().T).sha256()}
    assert len(names | others) == 4
    assert pack(sp.csr_matrix((2, 3))).sha256() != pack(sp.csr_matrix((4, 3))).sha256()
