"""``l0fast calibrate --data``: records in parquet, targets in words, weights by record id."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from cli_problem import call, fails, run, write_csv
from frames_problem import random_frame

DATA = ("--data", "hh.parquet", "--targets", "words.csv", "--epochs", 60)


@pytest.fixture(name="folder")
def records_folder(tmp_path, monkeypatch):
    """A folder, made the current one, with hh.parquet and words.csv."""
    monkeypatch.chdir(tmp_path)
    frame = random_frame(300)
    frame.to_parquet("hh.parquet")
    truth = frame.w0 * 1.1
    rows = [
        ("all", 1, "", truth.sum(), "count"),
        ("people", "size", "", (truth * frame["size"]).sum(), "size"),
        ("small", 1, "kids in (0, 1) and agi >= 0", truth[frame.kids.isin([0, 1]) & (frame.agi >= 0)].sum(), "count"),
    ]
    write_csv("words.csv", ("name", "measure", "filter", "value", "group"), rows)
    return frame


def test_weights_come_back_by_id(folder, capsys):
    options = ("--id", "hh", "--weight", "w0", "--lambda-l0", 0, "--diagnostics", "d.csv", "--report", "r.html")
    assert run("check", *DATA, "--id", "hh", "--weight", "w0") == 0
    assert "3 targets x 300 records" in capsys.readouterr().out
    assert run("calibrate", *DATA, "-o", "w.csv", *options) == 0
    assert run("calibrate", *DATA, "-o", "w.parquet", *options) == 0
    weights = pd.read_csv("w.csv")
    assert list(weights.columns) == ["hh", "weight"]
    pd.testing.assert_frame_equal(weights, pd.read_parquet("w.parquet"), check_dtype=False)
    joined = folder.merge(weights, on="hh", validate="1:1")
    rows = pd.read_csv("d.csv").set_index("name")
    assert rows.after["people"] == pytest.approx((joined["size"] * joined.weight).sum(), rel=1e-6)
    assert rows.before["people"] == pytest.approx((joined["size"] * joined.w0).sum(), rel=1e-6)
    record = json.loads(Path("w.json").read_text())
    assert record["inputs"]["data"]["path"] == "hh.parquet" and record["options"]["id"] == "hh"


def test_as_the_matrix_does(folder):
    """The same problem from a matrix file, in both orientations, gives the same weights."""
    small = (folder.kids.isin([0, 1]) & (folder.agi >= 0)).to_numpy()
    M = sp.csr_array(np.array([np.ones(300), folder["size"], small], dtype=np.float32))
    sp.save_npz("M.npz", M)
    sp.save_npz("MT.npz", sp.csr_array(M.T))
    folder.to_csv("w0.csv")
    common = ("--targets", "words.csv", "--init-weights", "w0.csv:w0", "--epochs", 60)
    assert run("calibrate", "M.npz", *common, "-o", "a.npy") == 0
    assert run("calibrate", "MT.npz", *common, "--orient", "records_by_targets", "-o", "b.npy") == 0
    assert run("calibrate", *DATA, "--weight", "w0", "-o", "c.npy") == 0
    assert run("calibrate", *DATA, "--init-weights", "w0.csv:w0", "-o", "d.csv") == 0
    for other in ("b.npy", "c.npy"):
        np.testing.assert_array_equal(np.load("a.npy"), np.load(other))
    rows = pd.read_csv("d.csv")
    assert list(rows.columns) == ["record", "weight"] and rows.record.tolist() == list(range(300))
    np.testing.assert_allclose(rows.weight, np.load("a.npy"), rtol=1e-6)


def test_bad_input(folder, capsys):
    out = ("-o", "w.npy")
    fails(capsys, "calibrate", "--targets", "words.csv", *out, says="MATRIX: expected a matrix file, or --data")
    fails(capsys, "check", "--targets", "words.csv", says="MATRIX: expected a matrix file, or --data")
    fails(capsys, "calibrate", "M.npz", *DATA, *out, says="--data: expected either a matrix or --data, got M.npz and")
    matrix = ("calibrate", "M.npz", "--targets", "words.csv", *out)
    fails(capsys, *matrix, "--id", "hh", says="--id: names a column of --data")
    fails(capsys, *matrix, "--weight", "w0", says="--weight: names a column of --data")
    data = ("calibrate", *DATA, *out)
    fails(capsys, *data, "--orient", "records_by_targets", says="--orient: is about MATRIX")
    fails(capsys, *data, "--weight", "w0", "--init-weights", "x.npy", says="--weight: expected either")
    fails(capsys, *data, "--id", "weight", says="--id: a column named weight")
    fails(capsys, *data, "--id", "HH", says="--id: no column 'HH' in the data; near it: hh")
    fails(capsys, *data, "--weight", "w01", says="--weight: no column 'w01' in the data; near it: w0")
    fails(capsys, *data[:-2], "-o", "hh.parquet", says="--output: hh.parquet is the file of --data too")
    missing = ("--data", "none.parquet", "--targets", "words.csv")
    fails(capsys, "calibrate", *missing, *out, says="--data: cannot read none.parquet")
    Path("text.parquet").write_text("name,value\n")
    missing = ("--data", "text.parquet", "--targets", "words.csv")
    fails(capsys, "calibrate", *missing, *out, says="--data: text.parquet is damaged")
    write_csv("words.csv", ("name", "measure", "filter", "value"), [("t", 1, "kids = 1", 3)])
    fails(capsys, *data, says="--targets: t: filter: expected a column, a number, a quoted text or an operator at posi")
    write_csv("words.csv", ("name", "measure", "filter", "value"), [("t", 1, "kids == 9", 3)])
    fails(capsys, *data, says="--targets: no record counts towards t (no record meets kids == 9)")
    assert not Path("w.npy").exists()


def test_one_line_from_a_shell(folder):
    done = call("calibrate", *DATA, "-o", "w.npy", "--id", "nothing")
    assert done.returncode == 2 and done.stderr.startswith(
        "l0fast: error: --id: no column 'nothing' in the data; there"
    )
