"""The budget benchmark: every way has its row, the bisection ends near the budget, and the figure is drawn."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_budget
import budget_figure
import budget_peer
import problems

NEEDS_L0 = pytest.mark.skipif(importlib.util.find_spec("l0") is None, reason="l0-python not installed")


@NEEDS_L0
@pytest.mark.filterwarnings("ignore")
def test_every_way_has_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(budget_peer, "FITS", 2)
    tiny = problems.synthetic("tiny", 30, 200, 5)
    monkeypatch.setattr(bench_budget, "make_problem", lambda *_: tiny)
    out = tmp_path / "budget.csv"
    common = ["--problem", "tiny", "--epochs", "20", "--threads", str(torch.get_num_threads()), "--out", str(out)]
    assert bench_budget.main([*common, "--records", "50", "--peer", "fit", "--l1", "1e-3"]) == 0
    assert bench_budget.main([*common, "--records", "50", "--peer", "epochs"]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ways = [row["way"] for row in rows]
    own = ["gates", "refit", "random subset, refit", "bisection, l0fast"]
    peers = ["bisection, l0-python (10 x one fit)", "bisection, l0-python (10 x epochs)"]
    assert ways == [*own, peers[0], "L1 (price 0.001)", "L1, refit (price 0.001)", *own, peers[1]]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert [bool(row["records"]) for row in rows] == [*[True] * (len(rows) - 1), False], "extrapolated: no result"
    assert float(rows[1]["mean_error"]) <= float(rows[0]["mean_error"]) + 1e-6


def test_bisection_ends_at_the_nearest_of_its_fits():
    tiny = problems.synthetic("tiny", 30, 200, 5)
    price, seconds = budget_peer.bisected_price(tiny, tiny.M, 100, 60, seed=0)
    model, _ = budget_peer.fitted(bench_budget.SparseCalibrationWeights, tiny, tiny.M, price, 60, 0)
    assert budget_peer.LOWEST < price < budget_peer.HIGHEST and seconds > 0
    assert abs(budget_peer.records(model) - 100) < 20


def test_committed_figures_have_their_rows(tmp_path):
    rows = budget_figure.latest(budget_figure.RESULTS / "budget.csv")
    assert {problem for problem, _ in rows} == {"cps40k", "cps280k"}
    budget_figure.save(budget_figure.draw(rows), tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000 and (tmp_path / "f.svg").exists()
    with pytest.raises(ValueError, match="expected rows of cps40k"):
        budget_figure.draw({})
