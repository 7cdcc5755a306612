"""Random matrices: the packer against scipy in float64."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l0fast import _load
from l0fast.calibration.matrix import PackedMatrix, pack


def truth_of(M) -> sp.csc_matrix:
    M = M.tocoo()
    M = sp.csc_matrix((M.data.astype(np.float64), (M.row, M.col)), shape=M.shape)  # scipy sums duplicates here
    M.eliminate_zeros()
    M.sort_indices()
    return M


def assert_packs(packed: PackedMatrix, truth: sp.csc_matrix, dtype: torch.dtype):
    """Same structure as scipy's, every value scipy's sum rounded once."""
    assert packed.shape == truth.shape and packed.dtype == dtype
    assert packed.rows.dtype == (torch.uint16 if truth.shape[0] <= 65536 else torch.int32)
    np.testing.assert_array_equal(packed.indptr.numpy(), truth.indptr)
    np.testing.assert_array_equal(packed.rows.numpy(), truth.indices)
    rounded = truth.data.astype(np.float32 if dtype == torch.float32 else np.float64)
    np.testing.assert_array_equal(packed.values.numpy(), rounded)


@st.composite
def matrices(draw):
    """(matrix, dtype, threads). Values are small multiples of 1/16: sums are exact, and often exactly zero."""
    m = draw(st.one_of(st.integers(1, 12), st.sampled_from([65536, 65537])))
    n, nnz = draw(st.integers(1, 12)), draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, cols = rng.integers(0, m, nnz), rng.integers(0, n, nnz)
    if draw(st.booleans()):  # many duplicates
        rows %= draw(st.integers(1, 4))
        cols %= draw(st.integers(1, 4))
    value = draw(st.sampled_from([np.float32, np.float64, np.int8, np.int64, np.float16, np.bool_]))
    values = rng.integers(-3, 4, nnz) / (16 if np.issubdtype(value, np.floating) else 1)
    index = draw(st.sampled_from([np.int32, np.int64]))
    M = sp.coo_matrix((values, (rows.astype(index), cols.astype(index))), shape=(m, n))
    M.data = values.astype(value)  # set, not passed: scipy refuses float16
    M = as_format(M, draw(st.sampled_from(["coo", "csr", "csc", "torch_coo", "torch_csr", "torch_csc"])))
    return M, draw(st.sampled_from([torch.float32, torch.float64])), draw(st.integers(1, 3))


def as_format(M: sp.coo_matrix, format: str):
    """Compressed formats keep the duplicates and the order of the entries, which scipy's own conversion may not."""
    layout = format.removeprefix("torch_")
    if layout == "coo":
        if layout == format:
            return M
        at = torch.from_numpy(np.stack([M.row, M.col]).astype(np.int64))
        return torch.sparse_coo_tensor(at, torch.from_numpy(M.data), M.shape, check_invariants=False)
    major, minor = (M.row, M.col) if layout == "csr" else (M.col, M.row)
    order = np.argsort(major, kind="stable")
    length = M.shape[0] if layout == "csr" else M.shape[1]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=length))]).astype(M.row.dtype)
    parts = (indptr, minor[order], M.data[order])
    if layout == format:
        result = getattr(sp, f"{layout}_matrix")(M.shape, dtype=np.float64)
        result.indptr, result.indices, result.data = parts
        return result
    kind = getattr(torch, f"sparse_{layout}_tensor")
    return kind(*map(torch.from_numpy, parts), M.shape, check_invariants=False)


def coordinates(M) -> sp.coo_matrix:
    """Any of the above in float64, the entries as they are."""
    if isinstance(M, torch.Tensor):
        if M.layout == torch.sparse_coo:
            return sp.coo_matrix((M._values().double().numpy(), tuple(M._indices().numpy())), shape=M.shape)
        csr = M.layout == torch.sparse_csr
        parts = (M.crow_indices(), M.col_indices()) if csr else (M.ccol_indices(), M.row_indices())
        kind = sp.csr_matrix if csr else sp.csc_matrix
        return kind((M.values().double().numpy(), parts[1].numpy(), parts[0].numpy()), shape=M.shape).tocoo()
    places = (M.row, M.col) if M.format == "coo" else None
    parts = (M.data.astype(np.float64), places) if places else (M.data.astype(np.float64), M.indices, M.indptr)
    return getattr(sp, f"{M.format}_matrix")(parts, shape=M.shape).tocoo()


@pytest.mark.parametrize("engine", ["native", "numpy"])
@settings(max_examples=300, deadline=None)
@given(case=matrices())
@pytest.mark.filterwarnings("ignore:Sparse")
def test_packs_as_scipy(engine, case):
    M, dtype, threads = case
    if engine == "native" and _load.host() is None:
        pytest.skip("l0fast._host is not built")
    with pytest.MonkeyPatch.context() as patch:
        if engine == "numpy":
            patch.setattr(_load, "host", lambda: None)
        assert_packs(pack(M, dtype, threads=threads), truth_of(coordinates(M)), dtype)


@pytest.mark.skipif(_load.host() is None, reason="l0fast._host is not built")
@settings(max_examples=200, deadline=None)
@given(
    entries=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(width=64)),
        min_size=1,
        max_size=12,
    ),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    csr=st.booleans(),
)
def test_any_float_native_as_numpy(entries, dtype, csr):
    """NaN, infinities, overflow, subnormal numbers, cancellation: the same bits, or the same message."""
    rows, cols, values = (np.array(part) for part in zip(*entries, strict=True))
    M = sp.coo_matrix((values, (rows, cols)), shape=(4, 4))
    if csr:
        M = as_format(M, "csr")

    def outcome():
        try:
            packed = pack(M, dtype)
        except ValueError as error:
            return str(error)
        return packed.indptr.tolist(), packed.rows.tolist(), packed.values.numpy().tobytes()

    native = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_load, "host", lambda: None)
        assert outcome() == native


@pytest.mark.parametrize("plant", ["value", "row", "indptr", "shape", "extra zero", "order"])
def test_the_comparison_rejects_planted_errors(plant):
    M = sp.random(20, 10, density=0.3, format="csr", random_state=np.random.default_rng(0))
    packed, truth = pack(M, torch.float64), truth_of(M)
    assert_packs(packed, truth, torch.float64)
    parts = [packed.indptr.clone(), packed.rows.clone(), packed.values.clone()]
    if plant == "value":
        parts[2][5] = torch.nextafter(parts[2][5], torch.tensor(9.0, dtype=torch.float64))
    elif plant == "row":
        parts[1].view(torch.int16)[5] ^= 1
    elif plant == "indptr":
        parts[0][3] -= 1
    elif plant == "extra zero":
        parts = [parts[0].clone(), torch.cat([parts[1], parts[1][-1:]]), torch.cat([parts[2], torch.zeros(1).double()])]
        parts[0][-1] += 1
    elif plant == "order":
        k = int(parts[0][:-1][parts[0].diff() > 1][0])  # a column of two or more
        for part in (parts[1].view(torch.int16), parts[2]):
            part[[k, k + 1]] = part[[k + 1, k]]
    shape = (21, 10) if plant == "shape" else packed.shape
    with pytest.raises(AssertionError):
        assert_packs(PackedMatrix(*parts, shape), truth, torch.float64)
