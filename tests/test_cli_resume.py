"""Runs that are stopped on the way: by SIGKILL, by Ctrl-C, by a smaller --epochs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_problem import CALIBRATE, ROOT, fails, problem_folder, read_csv, run, write_csv  # noqa: F401 - a fixture
from safetensors import safe_open

from l0fast.cli.demo import DATA

pytestmark = pytest.mark.usefixtures("problem")
OUT = ("-o", "w.npy", "--checkpoint", "run.st")


@pytest.fixture
def large(problem):
    """Arguments for a run that takes seconds: the bundled problem with 400 epochs."""
    with np.load(DATA) as data:
        write_csv("cps.csv", ("name", "value"), zip(data["names"].tolist(), data["y"].tolist(), strict=True))
        np.save("cps.npy", data["w0"])
    arguments = ("calibrate", DATA, "--targets", "cps.csv", "--init-weights", "cps.npy", "--epochs", 400)
    return (*arguments, "--verbose-freq", 40, "--checkpoint-freq", 40)


def stop_midway(arguments, number) -> subprocess.Popen:
    """Starts the command, sends the signal as soon as there is a checkpoint, and waits for the end."""
    command = [sys.executable, "-m", "l0fast", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 60
    while not Path("run.st").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(number)
    process.out, process.err = process.communicate(timeout=60)
    return process


def saved_epoch() -> int:
    with safe_open("run.st", framework="np") as file:
        return int(file.metadata()["epoch"])


def test_a_killed_run_ends_as_if_nothing_had_happened(large):
    process = stop_midway((*large, *OUT, "--log", "log.csv"), signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not Path("w.npy").exists()
    assert 0 < saved_epoch() < 400
    read_csv("log.csv")  # readable as it is
    assert run(*large, *OUT, "--log", "log.csv", "--resume") == 0
    assert run(*large, "-o", "whole.npy", "--log", "whole.csv") == 0
    assert Path("w.npy").read_bytes() == Path("whole.npy").read_bytes()
    assert Path("log.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_the_checkpoint_and_says_so(large):
    process = stop_midway((*large, *OUT), signal.SIGINT)
    assert process.returncode == 130, process.err
    (line,) = process.err.splitlines()
    epoch = saved_epoch()
    assert line == f"l0fast: interrupted after {epoch} of 400 epochs; saved in run.st, --resume continues"
    assert run(*large, *OUT, "--resume") == 0 and run(*large, "-o", "whole.npy") == 0
    assert Path("w.npy").read_bytes() == Path("whole.npy").read_bytes()


def test_resume_counts_epochs_in_total(capsys):
    short = (*CALIBRATE[:-1], 25)
    assert run(*short, *OUT) == 0 and saved_epoch() == 25
    assert run(*CALIBRATE, *OUT, "--resume") == 0 and saved_epoch() == 40
    assert run(*CALIBRATE, "-o", "whole.npy") == 0
    assert Path("w.npy").read_bytes() == Path("whole.npy").read_bytes()
    assert run(*CALIBRATE, *OUT, "--resume") == 0, "nothing left to do, but the outputs are written again"
    assert Path("w.npy").read_bytes() == Path("whole.npy").read_bytes()
    capsys.readouterr()
    fails(capsys, *short, *OUT, "--resume", says="--epochs: expected at least the 40 of the checkpoint, got 25")


def test_a_log_with_a_cut_line_is_continued(problem):
    options = (*OUT, "--log", "log.csv", "--verbose-freq", 5)
    assert run(*CALIBRATE[:-1], 10, *options) == 0
    with open("log.csv", "a") as file:
        file.write("t0,1.0,2.0,15,1,1,1,1,1,True\nt1,1.0,2.")  # after the checkpoint, and half a line
    assert run(*CALIBRATE, *options, "--resume") == 0
    assert run(*CALIBRATE, "-o", "whole.npy", "--log", "whole.csv", "--verbose-freq", 5) == 0
    assert Path("log.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_checkpoint_of_another_problem_is_refused_by_name(capsys):
    assert run(*CALIBRATE[:-1], 10, *OUT) == 0
    capsys.readouterr()
    resume = (*CALIBRATE, *OUT, "--resume")
    fails(capsys, *resume, "--lambda-l0", 1, says="lambda_l0 is not that of the saved run")
    fails(capsys, *resume, "--beta", 0.5, says="beta is 0.35 there, 0.5 in this model")
    rows = [(r["name"], float(r["value"]) * 2, r["group"]) for r in read_csv("targets.csv")]
    write_csv("targets.csv", ("name", "value", "group"), rows)
    fails(capsys, *resume, says="is not that of the saved run")
    whole = Path("run.st").read_bytes()
    Path("run.st").write_bytes(whole[: len(whole) // 2])
    fails(capsys, *resume, says="checkpoint run.st: not a complete safetensors file")
