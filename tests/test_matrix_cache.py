"""MatrixCache goes by content; the fingerprint under it sees every change."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from matrix_cases import assert_same_bits, dense
from matrix_cases import engine_fixture as engine_fixture

from l0fast import _load
from l0fast.calibration import matrix_source
from l0fast.calibration.matrix import MatrixCache, pack


def test_cache_hits_by_content(engine):
    cache, M = MatrixCache(), sp.csr_matrix(dense())
    first = cache.get(M)
    assert cache.get(M) is first and cache.get(M.copy()) is first
    assert_same_bits(first, pack(M))
    again = cache.get(M, torch.float64)
    assert again.dtype == torch.float64
    assert cache.get(M) is not first  # one matrix at a time
    cache.clear()
    assert cache.get(M) is not first


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_cache_notices_changes_in_place(engine, format):
    cache, M = MatrixCache(), sp.coo_matrix(dense()).asformat(format)
    first = cache.get(M)
    M.data[-1] += 0.125
    second = cache.get(M)
    assert second is not first
    assert_same_bits(second, pack(M))
    indices = M.col if format == "coo" else M.indices
    indices[0] = (indices[0] + 1) % min(M.shape)
    assert cache.get(M) is not second
    assert_same_bits(cache.get(M), pack(M))


def test_cache_does_not_go_by_shape(engine):
    cache = MatrixCache()
    ones, twos = np.ones((3, 3)), np.full((3, 3), 2.0)
    assert cache.get(ones).values.unique() == 1
    assert cache.get(twos).values.unique() == 2
    M = torch.ones(3, 3)
    first = cache.get(M)
    assert cache.get(M) is first
    M[0, 0] = 7
    assert cache.get(M).values[0] == 7


def test_cache_of_a_bad_matrix_holds_nothing(engine):
    cache, M = MatrixCache(), sp.csr_matrix(dense())
    cache.get(M)
    M.data[0] = np.nan
    for _ in range(2):
        with pytest.raises(ValueError, match="M: expected finite values"):
            cache.get(M)
    M.data[0] = 1
    assert_same_bits(cache.get(M), pack(M))


def test_cache_copies_are_empty_and_work():
    cache, M = MatrixCache(), sp.csr_matrix(dense())
    first = cache.get(M)
    for other in (copy.deepcopy(cache), copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.get(M) is not first
        assert_same_bits(other.get(M), first)
    assert cache.get(first) is first


def test_content_key_depends_on_every_array():
    M = matrix_source.source_of(sp.csr_matrix(dense()))
    wide = matrix_source.source_of(sp.csr_matrix(dense().astype(np.float32)))
    assert M.content_key(1) == M.content_key(2) != wide.content_key(1)


@pytest.mark.skipif(_load.host() is None, reason="l0fast._host is not built")
@pytest.mark.parametrize("size", [0, 1, 7, 8, 63, 64, 65, 1000, 2**18 - 1, 2**18, 2**18 + 1, 1_500_000])
def test_fingerprint_sees_every_change(size):
    fingerprint = _load.host().fingerprint
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    whole = fingerprint(data)
    assert len(whole) == 16
    assert all(fingerprint(data, threads) == whole for threads in (2, 3, 16))
    assert fingerprint(np.append(data, np.uint8(0))) != whole  # padding is not data
    for k in np.unique(np.linspace(0, size - 1, 40).astype(int)) if size else []:
        for bit in (1, 128):
            data[k] ^= bit
            assert fingerprint(data) != whole
            data[k] ^= bit
    assert fingerprint(data) == whole


@pytest.mark.skipif(_load.host() is None, reason="l0fast._host is not built")
def test_fingerprint_spreads():
    """Arrays that differ in one bit, swapped words or swapped chunks: no two alike, bits half ones."""
    fingerprint = _load.host().fingerprint
    zeros = np.zeros(512, dtype=np.uint8)
    hashes = []
    for bit in range(4096):
        zeros[bit // 8] ^= 1 << bit % 8
        hashes.append(fingerprint(zeros))
        zeros[bit // 8] ^= 1 << bit % 8
    words = np.arange(1 << 16, dtype=np.uint64)
    for a, b in [(0, 1), (0, 2), (0, 8), (1, 9), (5, 32768 + 5)]:
        words[[a, b]] = words[[b, a]]
        hashes.append(fingerprint(words))
        words[[a, b]] = words[[b, a]]
    hashes.append(fingerprint(np.roll(words, 32768)))
    hashes.append(fingerprint(words))
    assert len(set(hashes)) == len(hashes)
    assert len({h[:8] for h in hashes}) == len({h[8:] for h in hashes}) == len(hashes)
    ones = np.unpackbits(np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 16), axis=1).mean(axis=0)
    assert (abs(ones - 0.5) < 0.05).all()
