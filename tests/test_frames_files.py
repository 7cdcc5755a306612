"""Records in CSV files and in folders of parquet files, and cells that are intervals."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from frames_problem import random_frame

from l0fast.calibration.frames import CalibrationProblem, Margins, Target
from l0fast.cli import main

TARGETS = [Target(1, 5.0, "kids == 1"), Target("agi", 3.0, "region == 'west'"), Target("member", 2.0), Target(1, 9.0)]


def same(problem, other):
    assert problem.matrix.sha256() == other.matrix.sha256()
    assert problem.ids.to_pylist() == other.ids.to_pylist()
    np.testing.assert_array_equal(problem.weights, other.weights)


@pytest.mark.parametrize("chunk_rows", [7, 1000])
def test_files_hold_the_same_problem(tmp_path, chunk_rows):
    frame = random_frame(90).drop(columns="unused")
    whole = CalibrationProblem.from_frame(frame, TARGETS, "hh", "w0")
    frame.to_csv(tmp_path / "records.csv", index=False)
    folder = tmp_path / "parts"
    folder.mkdir()
    for k, first in enumerate(range(0, 90, 40)):
        pq.write_table(pa.Table.from_pandas(frame[first : first + 40]), folder / f"part-{k}.parquet")
    for path in (tmp_path / "records.csv", folder):
        same(CalibrationProblem.from_frame(path, TARGETS, "hh", "w0", chunk_rows=chunk_rows), whole)
        counted = CalibrationProblem.from_frame(path, Target(1, 90.0))
        assert counted.matrix.shape == (1, 90) and counted.matrix.nnz == 90


def test_folders_partitioned_by_a_column(tmp_path):
    frame = random_frame(60).drop(columns="unused").sort_values("kids", kind="stable")
    pq.write_to_dataset(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "d", partition_cols=["kids"])
    whole = CalibrationProblem.from_frame(frame, TARGETS, "hh", "w0")
    same(CalibrationProblem.from_frame(tmp_path / "d", TARGETS, "hh", "w0"), whole)


def test_the_command_reads_a_folder(tmp_path):
    frame = random_frame(60).drop(columns="unused")
    (tmp_path / "d").mkdir()
    frame.to_parquet(tmp_path / "d" / "a.parquet")
    (tmp_path / "t.csv").write_text("name,measure,filter,value\nall,1,,60\nkids,kids,,70\n")
    arguments = ["calibrate", "--data", str(tmp_path / "d"), "--targets", str(tmp_path / "t.csv"), "--epochs", "5"]
    assert main([*arguments, "-o", str(tmp_path / "w.csv"), "--id", "hh", "--threads", "1"]) == 0
    assert list(pd.read_csv(tmp_path / "w.csv").iloc[:, 0]) == list(frame.hh)


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="data: expected parquet files in the folder"):
        CalibrationProblem.from_frame(tmp_path, Target(1, 1.0))
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match="data: cannot read"):
        CalibrationProblem.from_frame(tmp_path, Target(1, 1.0))
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 400_000 + "x,2\n")  # the type is told by the first block
    with pytest.raises(ValueError, match=r"data: cannot read .*x\.csv"):
        CalibrationProblem.from_frame(tmp_path / "x.csv", Target("a", 1.0))
    with pytest.raises(OSError):
        CalibrationProblem.from_frame(tmp_path / "none.csv", Target("a", 1.0))


@pytest.mark.parametrize("right", [True, False])
def test_cells_may_be_intervals(right):
    frame = random_frame(200)
    edges = [-np.inf, 0, 10_000, 25_000, np.inf]
    bins = pd.cut(frame.agi, edges, right=right)
    totals = frame.groupby([bins.rename("agi"), "kids"], observed=True).size().rename("value").reset_index()
    problem = CalibrationProblem.from_frame(frame, Margins(["agi", "kids"], totals))
    matrix = problem.matrix.to_scipy().toarray()
    np.testing.assert_array_equal(matrix.sum(axis=1), totals.value)
    np.testing.assert_array_equal(matrix[3], (bins == totals.agi[3]) & (frame.kids == totals.kids[3]))
