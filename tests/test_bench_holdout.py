"""The benchmark of targets left out runs and writes what its tables say."""

import csv
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_holdout
import problems


def test_one_row_for_each_fold_and_group(tmp_path, capsys):
    out = tmp_path / "holdout.csv"
    arguments = ["--problem", "tiny", "--folds", "3", "--epochs", "4", "--out", str(out)]
    assert bench_holdout.main(arguments) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for by in ("targets", "groups"):
        mine = [row for row in rows if row["by"] == by]
        assert [row["row"] for row in mine] == [*["fold"] * 3, "all", *["group"] * 20]
        folds = [int(row["targets"]) for row in mine[:3]]
        assert sum(folds) == int(mine[3]["targets"]) == 300
        pooled = np.average([float(row["held_out_mean"]) for row in mine[:3]], weights=folds)
        assert abs(pooled - float(mine[3]["held_out_mean"])) < 1e-3 * pooled
        assert mine[3]["seconds"] and not mine[0]["seconds"] and mine[0]["own_mean"] and not mine[-1]["own_mean"]
    assert "3 folds of groups, " in capsys.readouterr().out


def test_groups_of_the_bundled_problem():
    problem = problems.make_problem("cps40k", None, Path())
    path = problems.ROOT / "l0fast" / "data" / "cps_tax_problem_40k.npz"
    assert len(np.unique(bench_holdout.group_labels(problem, path))) == 19
