"""A tiny calibration problem in files, and ways to call the command line on it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from l0fast import cli

ROOT = Path(__file__).parent.parent


def call(*arguments) -> subprocess.CompletedProcess:
    """The command in a process of its own, as a user's shell runs it in a pipe."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "l0fast", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.fixture(name="problem")
def problem_folder(tmp_path, monkeypatch):
    """A folder, made the current one, with matrix.npz [12, 60], targets.csv and w0.npy that fit each other."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    M = sp.random(12, 60, density=0.3, format="csr", random_state=1)
    M.data[:] = 1
    sp.save_npz("matrix.npz", M)
    y = M @ rng.uniform(50, 150, 60)
    write_csv(
        "targets.csv", ("name", "value", "group"), [(f"t{j}", repr(float(v)), f"g{j % 3}") for j, v in enumerate(y)]
    )
    np.save("w0.npy", np.full(60, 80.0))
    return tmp_path


def write_csv(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(*arguments) -> int:
    """The command in this process, quick."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        return stop.code


CALIBRATE = ("calibrate", "matrix.npz", "--targets", "targets.csv", "--init-weights", "w0.npy", "--epochs", 40)


def fails(capsys, *arguments, says: str = ""):
    """Exit code 2 and exactly one line on stderr, with the words."""
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("l0fast: error: "), lines
    assert says in lines[0], lines[0]
