"""The command line on tiny problems: what it writes, formats, options, exit codes."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from cli_problem import CALIBRATE, ROOT, call, fails, problem_folder, read_csv, run, write_csv  # noqa: F401 - a fixture

from l0fast import _load
from l0fast.cli.output import LOG_COLUMNS


def test_everything_is_written(problem):
    files = ("--diagnostics", "d.csv", "--log", "l.csv", "--report", "r.html", "--verbose-freq", 20)
    done = call(*CALIBRATE, "-o", "w.npy", *files, "--threads", 1)
    assert done.returncode == 0 and done.stderr == ""
    assert "\r" not in done.stdout and "epoch 20 of 40: loss" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("mean relative error ")
    weights = np.load("w.npy")
    assert weights.shape == (60,) and weights.dtype == np.float32 and (weights >= 0).all()

    log = read_csv("l.csv")
    assert tuple(log[0]) == LOG_COLUMNS and len(log) == 2 * 12
    row = {key: log[-1][key] for key in LOG_COLUMNS}
    estimate, target = float(row["estimate"]), float(row["target"])
    assert float(row["error"]) == pytest.approx(estimate - target)
    assert float(row["rel_error"]) == pytest.approx((estimate - target) / target)
    assert float(row["loss"]) == pytest.approx(float(row["rel_abs_error"]) ** 2)
    assert (row["target_name"], row["epoch"], row["achievable"]) == ("t11", "40", "True")

    diagnostics = read_csv("d.csv")
    totals = sp.load_npz("matrix.npz") @ weights.astype(float)
    np.testing.assert_allclose([float(r["after"]) for r in diagnostics], totals)
    assert [float(r["after"]) for r in diagnostics] == [float(r["estimate"]) for r in log[12:]]

    record = json.loads(Path("w.json").read_text())
    assert record["options"]["seed"] == 0 and record["options"]["lr"] == 0.15
    assert len(record["inputs"]["matrix"]["sha256"]) == 64
    assert record["quality"]["after"]["mean_error"] < record["quality"]["before"]["mean_error"]
    assert record["quality"]["after"]["active"] == (weights > 0).sum()
    assert set(record["seconds"]) == {"read", "fit", "total"}
    assert "http" not in Path("r.html").read_text()
    assert not list(problem.glob(".*")), "no passing files are left"


@pytest.mark.parametrize("name", ["w.csv", "w.parquet"])
def test_weight_formats_agree(problem, name):
    if name.endswith("parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
    assert run(*CALIBRATE, "-o", "w.npy") == 0 and run(*CALIBRATE, "-o", name) == 0
    if name.endswith("csv"):
        columns = np.genfromtxt(name, delimiter=",", names=True)
    else:
        columns = parquet.read_table(name).to_pydict()
    np.testing.assert_array_equal(columns["record"], np.arange(60))
    np.testing.assert_array_equal(np.float32(columns["weight"]), np.load("w.npy"))


def test_input_formats_agree(problem):
    M = sp.load_npz("matrix.npz")
    np.savez("plain.npz", data=M.data, indices=M.indices, indptr=M.indptr, shape=M.shape)
    sp.save_npz("csc.npz", M.tocsc())
    sp.save_npz("coo.npz", M.tocoo())
    scipy.io.mmwrite("m.mtx", M)
    with open("m.mtx", "rb") as plain, gzip.open("m.mtx.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    write_csv("w0.csv", ("id", "w"), [(i, 80) for i in range(60)])
    assert run(*CALIBRATE, "-o", "w.npy") == 0
    for matrix in ("plain.npz", "csc.npz", "coo.npz", "m.mtx", "m.mtx.gz"):
        again = ("calibrate", matrix, "--targets", "targets.csv", "--init-weights", "w0.csv:w", "--epochs", 40)
        assert run(*again, "-o", "again.npy") == 0
        np.testing.assert_array_equal(np.load("w.npy"), np.load("again.npy"), err_msg=matrix)


def test_targets_from_parquet(problem):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = read_csv("targets.csv")
    columns = {"name": [r["name"] for r in rows], "value": [float(r["value"]) for r in rows]}
    parquet.write_table(arrow.table(columns | {"group": [r["group"] for r in rows]}), "targets.parquet")
    assert run(*CALIBRATE, "-o", "w.npy") == 0
    assert run(*CALIBRATE[:2], "--targets", "targets.parquet", *CALIBRATE[4:], "-o", "again.npy") == 0
    np.testing.assert_array_equal(np.load("w.npy"), np.load("again.npy"))


def test_every_fit_option_arrives(problem):
    columns = ("name", "value", "weight", "scale", "tolerance", "group", "source")
    rows = [(r["name"], r["value"], 2, 100, 0.1, r["group"], "x") for r in read_csv("targets.csv")]
    write_csv("full.csv", columns, rows)
    options = "--lambda-l0 .01 --lambda-l2 1e-9 --lr .1 --beta .5 --gamma -.2 --zeta 1.2 --keep-prob .9 --jitter 0 "
    options += "--alpha-jitter 0 --no-normalize-groups --group-multiplier g1=3 --loss relative_epsilon --seed 7"
    call_ = ("calibrate", "matrix.npz", "--targets", "full.csv", "-o", "w.npy", "--epochs", 30)
    assert run(*call_, *options.split()) == 0
    record = json.loads(Path("w.json").read_text())["options"]
    assert record["group_multiplier"] == {"g1": 3.0} and record["keep_prob"] == 0.9 and record["gamma"] == -0.2

    from l0fast.calibration import SparseCalibrationWeights

    gate = {"beta": 0.5, "gamma": -0.2, "zeta": 1.2, "init_keep_prob": 0.9}
    model = SparseCalibrationWeights(60, **gate, init_weights=np.ones(60), log_alpha_jitter_sd=0.0, seed=7)
    targets = [float(row[1]) for row in rows]
    fit = {"lambda_l0": 0.01, "lambda_l2": 1e-9, "lr": 0.1, "epochs": 30, "loss_type": "relative_epsilon"}
    groups = {"target_groups": [row[5] for row in rows], "normalize_groups": False, "group_multipliers": {"g1": 3.0}}
    each = {"target_weights": [2.0] * 12, "target_scales": [100.0] * 12, "target_tolerances": [0.1] * 12}
    model.fit(sp.load_npz("matrix.npz"), targets, **fit, **groups, **each)
    np.testing.assert_array_equal(np.load("w.npy"), model.get_weights(deterministic=True).detach().numpy())


def test_dense_mode_keeps_every_record(problem):
    assert run(*CALIBRATE, "--no-gates", "-o", "w.npy") == 0
    assert (np.load("w.npy") > 0).all()


def test_require(problem, capsys):
    assert run(*CALIBRATE, "-o", "w.npy", "--require", "mean_error<=0.9", "--require", "active > 1") == 0
    assert run(*CALIBRATE, "-o", "w.npy", "--require", "mean_error<=0.9", "--require", "active<1") == 1
    assert "missed --require active<1" in capsys.readouterr().out
    assert json.loads(Path("w.json").read_text())["requirements"] == {"mean_error<=0.9": True, "active<1": False}
    for text in ("active", "size<=3", "active<=many", "active<=1; import os", "__class__<1"):
        fails(capsys, *CALIBRATE, "-o", "w.npy", "--require", text, says="--require")


def test_check(problem, capsys):
    assert run("check", "matrix.npz", "--targets", "targets.csv") == 0
    out = capsys.readouterr().out
    assert "no errors" in out and "memory about" in out and "time about" in out
    rows = [(r["name"], -float(r["value"])) for r in read_csv("targets.csv")]
    write_csv("wrong.csv", ("name", "value"), rows)
    fails(capsys, "check", "matrix.npz", "--targets", "wrong.csv", says="found 1 error")
    fails(capsys, "calibrate", "matrix.npz", "--targets", "wrong.csv", "-o", "w.npy", says="--no-preflight")
    assert not Path("w.npy").exists()
    assert run("calibrate", "matrix.npz", "--targets", "wrong.csv", "-o", "w.npy", "--no-preflight", "--log", "l") == 0
    assert {r["achievable"] for r in read_csv("l")} == {"False"}


def test_info(capsys):
    assert run("info") == 0
    out = capsys.readouterr().out
    for word in ("l0fast", "kernels", "torch", "numpy", "scipy", "python", "threads", "CUDA"):
        assert word in out


def test_info_says_for_which_gpus_the_library_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "_C_cuda.abi3.so").write_bytes(
        b"\0 -v  -arch sm_100 -m 64 \0 -arch sm_90 -m 64 \0 -arch sm_90 -m 64 \0"
    )
    monkeypatch.setattr(_load, "_HERE", tmp_path)
    assert run("info") == 0
    assert "_C_cuda.abi3.so for sm_90, sm_100" in capsys.readouterr().out


def test_info_says_why_there_are_no_kernels():
    done = subprocess.run(
        [sys.executable, "-m", "l0fast", "info"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "L0FAST_FALLBACK": "1"},
    )
    assert done.returncode == 0 and "fallback in plain torch: L0FAST_FALLBACK is set" in done.stdout


def test_demo(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # a second time over the same folder
        assert run("demo", "--epochs", 20) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"report: {Path('l0fast-demo/report.html')}"
    pattern = r"mean relative error 17\.6 % -> [\d.]+ %, active [\d,]+ of 40,000, [\d.]+ s for 20 epochs"
    assert re.fullmatch(pattern, lines[-1])
    assert {p.name for p in Path("l0fast-demo").iterdir()} == {
        *("targets.csv", "initial_weights.npy", "weights.npy", "run.json", "diagnostics.csv", "log.csv", "report.html")
    }
    assert "states: snap" in Path("l0fast-demo/report.html").read_text()
