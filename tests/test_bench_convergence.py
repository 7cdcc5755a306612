"""The benchmark of convergence: it judges by the right loss, times nobody's looking, and says who got there."""

import csv
import importlib.util
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_convergence
import convergence_figure
import convergence_runs
import problems
from convergence_runs import PEER, Clock, Look

NEEDS_L0 = pytest.mark.skipif(importlib.util.find_spec("l0") is None, reason="l0-python not installed")


@pytest.fixture
def tiny():
    return problems.synthetic("tiny", 30, 200, 5)


@NEEDS_L0
def test_a_short_run_writes_looks_a_summary_and_a_figure(tmp_path, monkeypatch, native, capsys):
    monkeypatch.setattr(convergence_runs, "CACHE", tmp_path)
    short = {name: {**recipe, "epochs": 40} for name, recipe in bench_convergence.RECIPES.items()}
    monkeypatch.setattr(bench_convergence, "RECIPES", short)
    out = tmp_path / "convergence.csv"
    arguments = ["--problem", "tiny", "--rounds", "2", "--peer-epochs", "20", "--out", str(out)]
    assert bench_convergence.main(arguments) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["contender"], row["seed"]) for row in rows} == {(n, s) for n in short for s in "01"} | {(PEER, "0")}
    for row in rows:
        assert None not in row and None not in row.values()
        parts = float(row["data_loss"]) + 1e-3 * float(row["expected_active"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-4)
    for name in (*short, PEER):
        epochs = [int(row["epoch"]) for row in rows if (row["contender"], row["seed"]) == (name, "0")]
        times = [float(row["seconds"]) for row in rows if (row["contender"], row["seed"]) == (name, "0")]
        assert epochs == ([0, 10, 20] if name == PEER else [10, 20, 30, 40]) and times == sorted(times)
    told = capsys.readouterr().out
    assert "l0-python runs 20 epochs" in told and told.count("l0fast, anneal") == 2 and "all four" in told
    assert bench_convergence.main(arguments) == 0
    assert "l0-python runs 20 epochs" not in capsys.readouterr().out, "once is enough"
    convergence_figure.main(["--csv", str(out), "--clock", "cpu"])
    assert out.with_suffix(".png").stat().st_size > 10_000


def test_the_loss_is_that_of_the_weights_without_noise(tiny):
    log_weight = np.random.default_rng(0).normal(0, 0.5, 200).astype(np.float32)
    log_alpha = np.linspace(-3, 3, 200, dtype=np.float32)
    judged = convergence_runs.judge(tiny, Look(5, Clock(0.0, 0.0), log_weight, log_alpha), 0.01)
    gates = np.clip(1.2 / (1 + np.exp(-log_alpha.astype(float) / 0.35)) - 0.1, 0, 1)
    differences = tiny.M.toarray().astype(float) @ (np.exp(log_weight.astype(float)) * gates) - tiny.y
    data = ((differences / (tiny.y + 1)) ** 2).sum()
    probability = 1 / (1 + np.exp(-(log_alpha - 0.35 * np.log(0.1 / 1.1)).astype(float)))
    squares = np.exp(2 * log_weight.astype(float)).sum()
    assert judged["data_loss"] == pytest.approx(data)
    assert judged["loss"] == pytest.approx(data + 0.01 * probability.sum() + 1e-12 * squares)
    assert judged["active"] == np.count_nonzero(gates) and 0 < judged["active"] < 200
    assert judged["mean_error"] == pytest.approx(np.abs(differences / tiny.y).mean())


def test_looking_is_not_counted(tiny, native, monkeypatch):
    slow = convergence_runs.Look

    def look(*values):
        time.sleep(0.2)
        return slow(*values)

    monkeypatch.setattr(convergence_runs, "Look", look)
    began = time.perf_counter()
    looks = convergence_runs.run_l0fast(tiny, {"lr": 0.1, "epochs": 50}, 1e-3, 0)
    whole = time.perf_counter() - began
    assert len(looks) == 5 and looks[-1].clock.wall < whole - 5 * 0.19


def test_a_run_that_tol_ends_is_looked_at_where_it_ends(tiny, native):
    recipe = {"lr": 0.1, "epochs": 2000, "tol": 0.5, "patience": 30}
    looks = convergence_runs.run_l0fast(tiny, recipe, 1e-3, 0)
    assert looks[-1].epoch < 2000 and looks[-1].epoch % 10 == 0


def test_marks_are_fewer_later_and_end_at_the_end():
    found = convergence_runs.marks(1005)
    assert found[:5] == [10, 20, 30, 40, 50] and found[-1] == 1005 and len(found) < 50
    assert convergence_runs.marks(4) == [4] and all(a < b for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("change", "both", "everything"),
    [
        ({}, True, True),
        ({"loss": 10.01}, False, False),
        ({"active": 1021}, False, False),
        ({"active": 1019, "loss": 9}, True, True),
        ({"data_loss": 1.03}, True, False),
        ({"mean_error": 0.0103}, True, False),
    ],
)
def test_nobody_gets_there_by_trading(change, both, everything):
    goal = {"loss": 10, "active": 1000, "data_loss": 1, "mean_error": 0.01}
    assert bench_convergence.reached({**goal, **change}, goal, False) == both
    assert bench_convergence.reached({**goal, **change}, goal, True) == everything


def test_a_contender_that_never_gets_there_is_named():
    peer = {"contender": PEER, "seed": 0, "epoch": 100, "seconds": "50", "cpu_seconds": "80", "loss": 1, "active": 9}
    runs = [
        {**peer, "contender": "a", "seed": seed, "epoch": epoch, "seconds": epoch / 10, "loss": 20 / epoch}
        for seed in (0, 1)
        for epoch in (10, 20, 30)
    ]
    runs += [{**peer, "contender": "b", "loss": loss, "seed": seed} for seed, loss in enumerate((1, 2))]
    lines = bench_convergence.summary([*runs, peer], everything=False)
    assert lines[0].split() == "a 20 epochs, 2.00 s, CPU 80.00 s: 25 times as fast, 1 by CPU time".split()
    assert lines[1].split() == "b reached it in 1 of 2 runs".split()


def test_the_figure_shows_the_run_that_gets_there_in_the_median_time():
    goal = {"loss": 10, "active": 100}
    runs = [[{"loss": 11, "active": 100, "seconds": 1}, {"loss": 9, "active": 100, "seconds": t}] for t in (7, 3, 5)]
    never = [{"loss": 11, "active": 100, "seconds": 4}]
    assert convergence_figure.median_run([*runs, never], goal, "seconds") is runs[2]
    assert convergence_figure.median_run([never, never[:]], goal, "seconds") is never


def test_unknown_problem_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench_convergence.main(["--problem", "cps41k"])
    assert "got cps41k" in capsys.readouterr().err
