"""The benchmark of wrapped modules runs, compares before it times, and writes what it printed."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import bench_wrap


@pytest.mark.parametrize("decay", ["0", "0.1"])
def test_quick(native, tmp_path, capsys, decay):
    out = tmp_path / "wrap.csv"
    assert bench_wrap.main(["--quick", "--rounds", "2", "--decay", decay, "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.open()))
    keys = [case.key for case in bench_wrap.cases(True)]
    assert [(row["case"], row["contender"]) for row in rows] == [
        (key, name) for key in keys for name in ("dense", "eager", "l0fast")
    ]
    assert all(float(row["median"]) > 0 and float(row["eager_ratio"]) > 0 for row in rows)
    assert capsys.readouterr().out.count("| l0fast |") == len(keys)


def test_variance(native, tmp_path):
    out = tmp_path / "wrap.csv"
    assert bench_wrap.main(["--quick", "--variance", "--rounds", "20", "--out", str(out)]) == 0
    shared, own = (float(row["median"]) for row in csv.DictReader(out.open()))
    assert 0 < own < shared


def test_another_result_is_not_timed(native):
    case = bench_wrap.cases(True)[0]
    models = bench_wrap.contenders_of(case, 0.0)
    assert bench_wrap.check(models, torch.randn(case.shape)) < 1e-4
    models["eager"].b = 1.2
    with pytest.raises(AssertionError, match="the same losses and gradients"):
        bench_wrap.check(models, torch.randn(case.shape))


def test_cases_have_a_million_parameters():
    for case in bench_wrap.cases(False):
        with torch.device("meta"):
            module: nn.Module = case.build()
        assert 0.95e6 < sum(p.numel() for p in module.parameters()) < 1.05e6, case.key


@pytest.mark.parametrize("arguments", [["--only", "gru"], ["--rounds", "1"]])
def test_bad_options(arguments, capsys):
    with pytest.raises(SystemExit):
        bench_wrap.parse(arguments)
    assert "expected" in capsys.readouterr().err
