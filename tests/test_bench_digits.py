"""The digits benchmark: it trains both packages alike, and its intervals are Student's."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits")
sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_digits


@pytest.mark.skipif(find_spec("l0") is None, reason="l0-python is not installed: nothing to compare with")
def test_quick_run_writes_rows_a_table_and_a_figure(tmp_path, capsys):
    out = tmp_path / "digits.csv"
    bench_digits.main(["--seeds", "2", "--epochs", "1", "--out", str(out)])
    runs = bench_digits.latest(out)
    assert {name: [row["seed"] for row in rows] for name, rows in runs.items()} == {
        "l0-python": ["0", "1"],
        "l0fast": ["0", "1"],
    }
    for row in (row for rows in runs.values() for row in rows):
        assert 0.3 < float(row["accuracy"]) <= 1 and 0 <= float(row["zero_gates"]) < 1 and float(row["seconds"]) > 0
        assert 0.19 < float(row["expected_sparsity"]) < 0.4  # where the gates begin, and a few steps on
    assert "| test accuracy |" in capsys.readouterr().out
    assert out.with_suffix(".png").stat().st_size > 10_000 and out.with_suffix(".svg").exists()


@pytest.mark.skipif(find_spec("l0") is None, reason="l0-python is not installed: nothing to compare with")
def test_both_start_from_the_same_weights():
    import l0

    import l0fast

    models = []
    for package in (l0, l0fast):
        torch.manual_seed(3)
        models.append(package.SparseMLP(64, 16, 10, **bench_digits.GATES))
    for (name, theirs), (_, ours) in zip(*(model.named_parameters() for model in models), strict=True):
        torch.testing.assert_close(theirs, ours, msg=name)


def test_intervals():
    samples = [0.97, 0.98, 0.975, 0.96, 0.99]
    low, high = stats.t.interval(0.95, 4, np.mean(samples), stats.sem(samples))
    found = bench_digits.Interval.of(samples)
    assert found.mean - found.half == pytest.approx(low) and found.mean + found.half == pytest.approx(high)
    assert found.overlaps(bench_digits.Interval(found.mean + 2 * found.half, found.half * 1.01))
    assert not found.overlaps(bench_digits.Interval(found.mean + 2 * found.half, found.half * 0.99))
    with pytest.raises(ValueError, match="at least two seeds"):
        bench_digits.Interval.of([1.0])


def test_only_the_latest_run_is_shown(tmp_path):
    out = tmp_path / "digits.csv"
    out.write_text("date,package,seed\n1,l0fast,0\n1,l0-python,0\n2,l0-python,0\n2,l0fast,0\n")
    assert {name: [r["date"] for r in rows] for name, rows in bench_digits.latest(out).items()} == {
        "l0-python": ["2"],
        "l0fast": ["2"],
    }
