"""Bounds, mass, L1 and whole weights from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_problem import CALIBRATE, fails, problem_folder, read_csv, run, write_csv  # noqa: F401 - a fixture

LONGER = (*CALIBRATE[:-1], 300)
BOTH = ("--mass", "conserve", "--max-weight-ratio", 3)


def initial() -> np.ndarray:
    weights = np.random.default_rng(1).uniform(40, 160, 60)
    np.save("w0.npy", weights)
    return weights


@pytest.mark.parametrize("more", [(), ("--no-gates",), ("--target-records", 40, "--exact", "--refit", 100)])
def test_mass_and_ratio_are_exact_in_the_file(problem, more):
    w0 = initial()
    assert run(*LONGER, "-o", "w.npy", *BOTH, "--min-weight", 20, "--anchor", "initial", *more) == 0
    weights = np.load("w.npy").astype(float)
    # 60 weights of float32 near 100 are 8e-6 apart; half of that is 6e-10 of the total.
    assert weights.sum() == pytest.approx(w0.sum(), rel=1e-9)
    assert (weights / w0).max() <= 3 and weights[weights > 0].min() >= 20
    written = json.loads(Path("w.json").read_text())
    assert written["weights"]["after"]["largest_change"] <= 3
    assert (written["options"]["mass"], written["options"]["max_weight_ratio"]) == ("conserve", 3)


def test_bounds_come_from_a_file(problem):
    low, high = np.full(60, 10.0), np.where(np.arange(60) % 2, 90.0, np.inf)
    write_csv("bounds.csv", ("low", "high"), zip(low.tolist(), high.tolist(), strict=True))
    assert run(*LONGER, "-o", "w.npy", "--bounds", "bounds.csv") == 0
    weights = np.load("w.npy").astype(float)
    assert (weights <= high).all() and weights[weights > 0].min() >= 10 and weights.max() > 90
    assert set(json.loads(Path("w.json").read_text())["inputs"]) >= {"bounds"}


def test_a_resumed_run_equals_one_run(problem):
    options = ("--target-records", 40, *BOTH, "--refit", 50)
    assert run(*CALIBRATE[:-1], 200, "-o", "whole.npy", *options) == 0
    for epochs, more in ((120, ()), (200, ("--resume",))):
        pieces = ("--checkpoint", "run.safetensors", *more)
        assert run(*CALIBRATE[:-1], epochs, "-o", "pieces.npy", *pieces, *options) == 0
    np.testing.assert_array_equal(np.load("pieces.npy"), np.load("whole.npy"))


def test_l1_chooses_records(problem, capsys):
    counts = []
    for price in ("0", "1e-3", "1e-2"):
        assert run(*LONGER, "-o", "w.npy", "--l1-lambda", price) == 0
        counts.append(np.count_nonzero(np.load("w.npy")))
    assert counts[0] > counts[1] > counts[2] > 0
    options = json.loads(Path("w.json").read_text())["options"]
    assert options["lambda_l0"] is None and options["l1_lambda"] == 0.01


@pytest.mark.parametrize("name", ["w.npy", "w.csv", "w.parquet"])
def test_whole_weights(problem, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    for out, more in (("real.npy", ()), (name, ("--integerize",))):
        assert run(*LONGER, "-o", out, "--seed", 3, *more) == 0
    real = np.load("real.npy").astype(float)
    if name.endswith("npy"):
        whole = np.load(name)
    elif name.endswith("csv"):
        whole = np.array([int(row["weight"]) for row in read_csv(name)])
    else:
        from pyarrow import parquet

        whole = parquet.read_table(name)["weight"].to_numpy()
    assert whole.dtype == np.int64 and whole.sum() == round(real.sum()) and (np.abs(whole - real) < 1).all()
    written = json.loads(Path(name).with_suffix(".json").read_text())
    assert written["weights"]["after"]["total"] == whole.sum() and written["options"]["integerize"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--l1-lambda 1 --lambda-l0 0.1", "--l1-lambda: expected it without --lambda-l0"),
        ("--l1-lambda 1 --target-records 9", "--l1-lambda: expected it without --target-records"),
        ("--l1-lambda 1 --no-gates", "--l1-lambda: expected it without --no-gates"),
        ("--l1-lambda 1 --checkpoint c", "--l1-lambda: expected it without --checkpoint"),
        ("--l1-lambda -1", "l1_lambda: expected a finite number of at least 0, got -1"),
        ("--mass keep", "--mass: invalid choice"),
        ("--anchor final", "--anchor: invalid choice"),
        ("--min-weight x", "--min-weight: expected a number, got 'x'"),
        ("--max-weight-ratio 0", "max_weight_ratio: expected a finite number above 0, got 0"),
        (
            "--mass conserve --max-weight-ratio 2 --target-records 29",
            "mass: expected 4800 within reach, got at most 4640 from any 29 records",
        ),
        ("--bounds nowhere.csv", "--bounds: cannot read nowhere.csv"),
        ("--bounds short.csv", "--bounds: expected 60 rows, one for each column of the matrix, got 1 in short.csv"),
        ("--bounds other.csv", "--bounds: expected columns low,high, got no high in other.csv"),
        ("--bounds words.csv", "--bounds: column high: expected a number, got 'all' in row 1 of words.csv"),
    ],
)
def test_refused(problem, capsys, options, says):
    write_csv("short.csv", ("low", "high"), [(0, 1)])
    write_csv("other.csv", ("low",), [(0,)])
    write_csv("words.csv", ("low", "high"), [(0, "all")])
    fails(capsys, *CALIBRATE, "-o", "w.npy", *options.split(), says=says)
    assert not Path("w.npy").exists()
