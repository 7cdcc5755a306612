"""What the tests of the packed matrix share."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from l0fast import _load
from l0fast.calibration.matrix import PackedMatrix

SCIPY_FORMATS = ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"]


@pytest.fixture(name="engine", params=["native", "numpy"])
def engine_fixture(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(_load, "host", lambda: None)
    elif _load.host() is None:
        pytest.skip("l0fast._host is not built")
    return request.param


def dense(m=6, n=9, seed=0):
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(size=(m, n)) * 8) / 8 * (rng.random((m, n)) < 0.4)


def assert_same_bits(a: PackedMatrix, b: PackedMatrix):
    for name in ("indptr", "rows", "values"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype and torch.equal(x.to(torch.float64), y.to(torch.float64)), name
    assert a.shape == b.shape and a.sha256() == b.sha256()


def assert_holds(packed: PackedMatrix, expected: np.ndarray):
    """Packed form in order, without zeros, and equal to the dense matrix."""
    rows, indptr = packed.rows.to(torch.int64), packed.indptr
    for i in range(packed.n_records):
        assert (rows[indptr[i] : indptr[i + 1]].diff() > 0).all()
    assert (packed.values != 0).all()
    np.testing.assert_array_equal(packed.to_scipy().toarray(), expected)


def big(seed=0):
    """Enough entries for several threads and blocks, with duplicates, zeros, a long column and empty ones."""
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, 1500, 900_000), rng.integers(0, 40_000, 900_000) // 7 * 7
    cols[:200_000] = 7
    values = rng.normal(size=900_000).astype(np.float32)
    values[::50] = 0
    return sp.coo_matrix((values, (rows.astype(np.int32), cols.astype(np.int32))), shape=(1500, 40_000))


def rows_of(M, ordered: bool):
    """Compressed rows that keep the duplicates, within a row ordered by column or as they come."""
    order = np.lexsort((M.col, M.row)) if ordered else np.argsort(M.row, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(M.row, minlength=M.shape[0]))])
    return sp.csr_matrix((M.data[order], M.col[order], indptr), shape=M.shape)
