"""benchmarks/bench_compact.py runs, and times only what computes the same."""

import csv
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_compact


def test_writes_a_row_for_each_model(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_compact, "WIDTHS", (4, 4, 8, 8, 16, 16))
    out = tmp_path / "compact.csv"
    assert bench_compact.main(["--batch", "2", "--rounds", "2", "--threads", "1", "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["gated", "materialized", "compact"]
    assert int(rows["compact"]["parameters"]) < 0.8 * int(rows["materialized"]["parameters"])
    assert all(float(row["p20_ms"]) <= float(row["median_ms"]) <= float(row["p80_ms"]) for row in rows.values())
    assert float(rows["compact"]["max_difference"]) < 1e-4


def test_a_model_that_differs_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench_compact, "WIDTHS", (4, 4, 8, 8, 16, 16))
    wrong = bench_compact.network(0.9, seed=1)
    monkeypatch.setattr(bench_compact, "materialize", lambda model: wrong.eval())
    with pytest.raises(SystemExit, match="nothing was timed"):
        bench_compact.main(["--batch", "1", "--rounds", "1", "--threads", "1"])
