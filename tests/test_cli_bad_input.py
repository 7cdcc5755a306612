"""Bad input on the command line: exit code 2 and exactly one line on stderr, before anything is written."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from cli_problem import CALIBRATE, call, fails, problem_folder, read_csv, run, write_csv  # noqa: F401 - a fixture

from l0fast.cli import output as cli_output

pytestmark = pytest.mark.usefixtures("problem")
OUT = ("-o", "w.npy")


def with_matrix(path, *more):
    return ("calibrate", path, "--targets", "targets.csv", "--epochs", 5, *OUT, *more)


def with_targets(path, *more):
    return ("calibrate", "matrix.npz", "--targets", path, "--epochs", 5, *OUT, *more)


def test_one_line_from_a_shell():
    done = call(*with_matrix("missing.npz"))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "l0fast: error: MATRIX: cannot read missing.npz: No such file or directory\n"


def test_damaged_matrices(capsys):
    whole = Path("matrix.npz").read_bytes()
    for size in (0, 1, 30, len(whole) // 2, len(whole) - 5):
        Path("cut.npz").write_bytes(whole[:size])
        fails(capsys, *with_matrix("cut.npz"), says="cut.npz is damaged or not a sparse matrix")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    Path("flipped.npz").write_bytes(bytes(flipped))
    run(*with_matrix("flipped.npz"))  # whatever it says, no traceback: a fault would be exit code 3
    assert "Traceback" not in capsys.readouterr().err
    Path("cut.mtx").write_text("%%MatrixMarket matrix coordinate real general\n3 3 9\n1 1 1.0\n")
    fails(capsys, *with_matrix("cut.mtx"), says="damaged")
    Path("not.mtx.gz").write_text("not gzip")
    fails(capsys, *with_matrix("not.mtx.gz"), says="damaged")


def test_matrices_that_are_none(capsys):
    np.savez("other.npz", a=np.ones(3))
    fails(capsys, *with_matrix("other.npz"), says="no array named data, found a")
    np.savez("pickle.npz", data=np.array([{}], dtype=object), indices=[0], indptr=[0, 1], shape=[1, 1])
    fails(capsys, *with_matrix("pickle.npz"), says="damaged")
    np.savez("index.npz", data=[1.0], indices=[7], indptr=[0, 1], shape=[1, 2])
    fails(capsys, *with_matrix("index.npz"), says="damaged")
    np.savez("pointer.npz", data=[1.0], indices=[0], indptr=[0, 5], shape=[1, 2])
    fails(capsys, *with_matrix("pointer.npz"), says="damaged")
    scipy.io.mmwrite("complex.mtx", sp.csr_array(np.array([[1j]])))
    fails(capsys, *with_matrix("complex.mtx"), says="expected real numbers")
    sp.save_npz("empty.npz", sp.csr_array((0, 60)))
    fails(capsys, *with_matrix("empty.npz"), says="at least one target")
    fails(capsys, *with_matrix("matrix.txt"), says="cannot read")
    Path("matrix.txt").write_text("1")
    fails(capsys, *with_matrix("matrix.txt"), says="expected a .npz, .mtx or .mtx.gz file")
    fails(capsys, *with_matrix("."), says="cannot read")


def test_lengths(capsys):
    rows = [(r["name"], r["value"]) for r in read_csv("targets.csv")]
    write_csv("short.csv", ("name", "value"), rows[:-1])
    fails(capsys, *with_targets("short.csv"), says="expected 12 targets, one for each row of the matrix, got 11")
    np.save("w59.npy", np.ones(59))
    fails(capsys, *with_matrix("matrix.npz", "--init-weights", "w59.npy"), says="expected 60 values")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_targets_that_are_not_finite(capsys, value):
    rows = [(r["name"], r["value"]) for r in read_csv("targets.csv")]
    write_csv("bad.csv", ("name", "value"), [*rows[:3], ("culprit", value), *rows[4:]])
    assert run(*with_targets("bad.csv")) == 2
    said = capsys.readouterr()
    assert "culprit" in said.out and len(said.err.splitlines()) == 1
    fails(capsys, *with_targets("bad.csv", "--no-preflight"), says="target 3")


def test_targets_that_are_none(capsys):
    for text, says in {
        "": "empty file",
        "name,value\n": "at least one target",
        "name,number\na,1\n": "expected columns name and value, got name, number",
        "name,value\na,1\nb\n": "expected 2 fields, got 1 in row 2",
        "name,value\na,1\nb,many\n": "expected a number, got 'many' in row 2",
        "name,value,weight\na,1,\n": "column weight: expected a number, got ''",
        "name,value,value\na,1,2\n": "expected distinct column names",
    }.items():
        Path("bad.csv").write_text(text)
        fails(capsys, *with_targets("bad.csv"), says=says)
    Path("bad.csv").write_bytes(b"\xff\xfe\x00name")
    fails(capsys, *with_targets("bad.csv"), says="not a CSV file")
    fails(capsys, *with_targets("none.csv"), says="cannot read none.csv")
    Path("bad.parquet").write_bytes(b"PAR1")
    pytest.importorskip("pyarrow")
    fails(capsys, *with_targets("bad.parquet"), says="damaged or not parquet")


def test_columns_out_of_range(capsys):
    rows = [(r["name"], r["value"], 1.0) for r in read_csv("targets.csv")]
    for column, value in {"weight": -1.0, "scale": 0.0, "tolerance": -0.1}.items():
        write_csv("bad.csv", ("name", "value", column), [*rows[:-1], (*rows[-1][:2], value)])
        loss = ("--loss", "relative_epsilon") if column == "tolerance" else ()
        fails(capsys, *with_targets("bad.csv", *loss), says="preflight found 1 error")
        fails(capsys, *with_targets("bad.csv", *loss, "--no-preflight"), says=f"target_{column}s")


def test_initial_weights(capsys):
    for values in (np.full(60, np.nan), np.full(60, -1.0)):
        np.save("bad.npy", values)
        fails(capsys, *with_matrix("matrix.npz", "--init-weights", "bad.npy"), says="found 1 error")
        fails(capsys, *with_matrix("matrix.npz", "--init-weights", "bad.npy", "--no-preflight"), says="init_weights")
    Path("bad.npy").write_bytes(Path("w0.npy").read_bytes()[:100])
    fails(capsys, *with_matrix("matrix.npz", "--init-weights", "bad.npy"), says="damaged")
    fails(capsys, *with_matrix("matrix.npz", "--init-weights", "targets.csv"), says="file.csv:column")
    fails(capsys, *with_matrix("matrix.npz", "--init-weights", "targets.csv:w"), says="a column w, got name, value")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--keep-prob 1.5", "init_keep_prob"),
        ("--keep-prob many", "--keep-prob"),
        ("--lr -1", "lr"),
        ("--lambda-l0 nan", "lambda_l0"),
        ("--gamma 1", "gamma"),
        ("--loss squares", "--loss"),
        ("--epochs -3", "--epochs"),
        ("--epochs 1.5", "--epochs"),
        ("--threads 0", "--threads"),
        ("--seed -1", "--seed"),
        ("--device abacus", "--device"),
        ("--group-multiplier g1", "--group-multiplier"),
        ("--group-multiplier g9=2", "g9"),
        ("--loss-cap 0 --loss capped_mape", "loss_cap"),
        ("--loss relative_epsilon", "target_tolerances"),
        ("--resume", "--resume"),
        ("--resume --checkpoint none.st", "--checkpoint: cannot read none.st"),
        ("--checkpoint-freq 0", "--checkpoint-freq"),
        ("--lambda 3", "--lambda"),
        ("--lr 1e30", "lr"),
    ],
)
def test_options(capsys, options, says):
    fails(capsys, *with_matrix("matrix.npz", *options.split()), says=says)
    assert not Path("w.npy").exists()


def test_outputs_are_checked_before_the_run(capsys, monkeypatch):
    monkeypatch.setattr(
        "l0fast.cli.files.read_matrix", lambda path: pytest.fail("read before the outputs were checked")
    )
    Path("folder").mkdir()
    for options, says in {
        "-o none/w.npy": "--output: no folder none",
        "-o w.txt": "--output: expected a .npy, .csv or .parquet file",
        "-o folder.npy/w.npy": "no folder",
        "-o w.npy --log w.npy": "--log: w.npy is the file of --output too",
        "-o w.npy --report targets.csv": "--report: targets.csv is the file of --targets too",
        "-o w.npy --json folder": "--json: expected a file, got the folder",
        "-o w.npy --diagnostics none/d.csv": "--diagnostics: no folder none",
    }.items():
        fails(capsys, *CALIBRATE, *options.split(), says=says)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", _refuse(errno.EACCES))
    fails(capsys, *CALIBRATE, *OUT, says="--output: cannot write to .: Permission denied")


def _refuse(number):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_full_disk_does_not_lose_the_weights(capsys, monkeypatch):
    assert run(*CALIBRATE, "-o", "good.npy") == 0
    capsys.readouterr()
    Path("rescue").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(Path("rescue").resolve()))
    monkeypatch.setattr(cli_output, "atomic_write", _refuse(errno.ENOSPC))
    fails(capsys, *CALIBRATE, *OUT, says="--output: cannot write w.npy: No space left on device; the weights are in")
    (rescued,) = Path("rescue").glob("l0fast-weights-*.npy")
    np.testing.assert_array_equal(np.load(rescued), np.load("good.npy"))
    monkeypatch.setattr(tempfile, "mkstemp", _refuse(errno.ENOSPC))
    fails(capsys, *CALIBRATE, *OUT, says="nor could they be saved in")


def test_a_full_disk_under_the_checkpoint_does_not_lose_the_weights(capsys, monkeypatch):
    Path("rescue").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(Path("rescue").resolve()))
    monkeypatch.setattr("l0fast.calibration.checkpoint.atomic_write", _refuse(errno.ENOSPC))
    options = ("--checkpoint", "run.st", "--checkpoint-freq", 10)
    fails(capsys, *CALIBRATE, *OUT, *options, says="stopped at epoch 10, the weights are in")
    (rescued,) = Path("rescue").glob("l0fast-weights-*.npy")
    assert run(*CALIBRATE[:-1], 10, "-o", "ten.npy") == 0
    np.testing.assert_array_equal(np.load(rescued), np.load("ten.npy"))


def test_a_log_that_fills_the_disk_does_not_stop_the_run(capsys, monkeypatch):
    real = cli_output.TargetLog.__init__

    def start_then_full(self, *arguments):
        real(self, *arguments)
        self.path = Path("none/log.csv")

    monkeypatch.setattr(cli_output.TargetLog, "__init__", start_then_full)
    fails(capsys, *CALIBRATE, *OUT, "--log", "l.csv", says="--log: cannot write l.csv")
    assert np.load("w.npy").shape == (60,) and Path("w.json").exists()


def test_missing_libraries_are_named_before_the_run(capsys, monkeypatch):
    real = __import__("importlib").import_module

    def without(name, *arguments):
        if name.split(".")[0] in ("matplotlib", "pyarrow"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments)

    monkeypatch.setattr("l0fast.cli.files.importlib.import_module", without)
    fails(capsys, *CALIBRATE, *OUT, "--report", "r.html", says="pip install 'l0fast[report]'")
    fails(capsys, *CALIBRATE, "-o", "w.parquet", says="pip install 'l0fast[data]'")
    Path("t.parquet").write_bytes(b"x")
    fails(capsys, *with_targets("t.parquet"), says="pip install 'l0fast[data]'")


def test_a_fault_of_our_own_keeps_its_traceback(capsys, monkeypatch):
    monkeypatch.setattr("l0fast.cli.calibrate.fit", lambda *_: 1 / 0)
    assert run(*CALIBRATE, *OUT) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err
