"""A parquet file larger than the memory that is left still becomes a problem."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_problem import ROOT

COLUMNS, GROUPS, ROWS = 40, 20, 75_000  # 480 MB of doubles

PROGRAM = """
import resource, sys
import pandas, pyarrow.parquet as pq, torch
from l0fast.calibration.frames import CalibrationProblem, Target
torch.set_num_threads(1)
pyarrow = sys.modules["pyarrow"]
pyarrow.set_cpu_count(1), pyarrow.set_io_thread_count(1)
path, what = sys.argv[1:]
used = 4096 * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, used + 300_000_000))
if what == "whole":
    pq.read_table(path)
else:
    targets = [Target(1, 7, "c0 < 0.5"), Target("c1", 8, "c2 >= 0.9"), Target("c3", 9)]
    problem = CalibrationProblem.from_frame(path, targets, id="id", chunk_rows=50_000)
    print(problem.matrix.shape, problem.matrix.nnz, problem.matrix.row_counts().tolist())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_a_file_larger_than_memory(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "big.parquet"
    schema = pa.schema([("id", pa.int64()), *((f"c{k}", pa.float64()) for k in range(COLUMNS))])
    met = np.zeros(3, dtype=int)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for group in range(GROUPS):
            values = rng.random((COLUMNS, ROWS))
            met += [(values[0] < 0.5).sum(), (values[2] >= 0.9).sum(), ROWS]
            ids = np.arange(group * ROWS, (group + 1) * ROWS)
            writer.write_table(pa.table([ids, *values], schema=schema))
    assert path.stat().st_size > 450_000_000

    def call(what):
        command = [sys.executable, "-c", PROGRAM, str(path), what]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)

    whole = call("whole")
    assert whole.returncode != 0 and "alloc" in whole.stderr  # the limit is one
    done = call("chunked")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"(3, {GROUPS * ROWS}) {met.sum()} {met.tolist()}\n"
