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
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits")
    out = tmp_path / "wrap.csv"
    assert bench_wrap.main(["--quick", "--variance", "--rounds", "20", "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert len({(row["case"], row["contender"]) for row in rows}) == len(rows) == 8
    assert all(float(row["p20"]) > 0 and row["unit"] == "variance" for row in rows)


def test_gradient_variances_are_those_of_the_noise():
    """Independent gates divide by the batch where all examples are the same; the mean gradient stays."""
    torch.manual_seed(0)
    x, y = torch.ones(16, 6), torch.zeros(16, dtype=torch.int64)
    wrapped = bench_wrap.L0Regularizer(nn.Linear(6, 3), 0.0, droprate_init=0.5)
    shared = bench_wrap.gradient_variances(wrapped, x, y, 400)
    wrapped.independent = True
    own = bench_wrap.gradient_variances(wrapped, x, y, 400)
    for what in shared:
        assert own[what][0] == pytest.approx(shared[what][0] / 16, rel=0.2)


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
