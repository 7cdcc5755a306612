"""The CPS tax units in full, where their file is at hand: the same matrix as the one built by hand, and in time."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_frames
import build_cps_problem

from l0fast.calibration import pack
from l0fast.calibration.frames import CalibrationProblem

DATA = Path(os.environ.get("L0FAST_CPS_PARQUET", "cps_tax_units.parquet"))
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="L0FAST_CPS_PARQUET names no cps_tax_units.parquet")


@pytest.mark.slow
def test_cps_tax_units():
    frame = pd.read_parquet(DATA)
    targets = pd.DataFrame(bench_frames.with_values(bench_frames.cps_targets(frame), frame))
    began = time.perf_counter()
    problem = CalibrationProblem.from_frame(DATA, targets, "RECID", "s006", chunk_rows=50_000)
    assert time.perf_counter() - began < 10
    np.testing.assert_allclose(problem.matrix.to_scipy() @ frame[bench_frames.WEIGHT], problem.y, rtol=1e-6)
    assert problem.ids.to_pylist() == frame.RECID.tolist()
    by_hand = build_cps_problem.build_problem(build_cps_problem.records_from_parquet(DATA))
    arrays = (by_hand["data"], by_hand["indices"], by_hand["indptr"])
    matrix = pack(build_cps_problem.sp.csr_matrix(arrays, shape=tuple(by_hand["shape"])))
    assert problem.matrix.shape == matrix.shape and problem.matrix.nnz == matrix.nnz
    # The same rows under other names, in another order.
    mine, theirs = problem.matrix.to_scipy().tocsr(), matrix.to_scipy().tocsr()
    assert sorted(row_key(mine, j) for j in range(mine.shape[0])) == sorted(
        row_key(theirs, j) for j in range(len(problem.y))
    )


def row_key(matrix, row):
    span = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return hash((matrix.indices[span].tobytes(), matrix.data[span].tobytes()))
