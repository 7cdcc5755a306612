"""Runs on several processes over gloo: the number of processes changes nothing, and a lost one costs only its epochs.

Interpreters take about 2 s to start, so each group of processes runs several cases.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import process_problem
import pytest
import scipy.sparse as sp
from cli_problem import read_csv, write_csv
from model_problem import N_RECORDS, survey
from safetensors import safe_open

from l0fast import _load, cli

pytest.importorskip("torch.distributed")
ROOT = Path(__file__).parent.parent
AT_FOUR = ("gates", "budget", "exact", "refit")
"""Cases that four processes run too."""
RTOL = 1e-5 if _load.native_error() is None else 1e-3
"""torch rounds the last elements of a vector otherwise than the rest: without the kernels, shards differ by that."""
LIMIT = 150
"""Seconds: a machine may be busy, but a hang must fail."""


def environment(**more) -> dict:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **more}


def finish(processes) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each."""
    limit = time.monotonic() + LIMIT
    try:
        said = [process.communicate(timeout=max(limit - time.monotonic(), 1)) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def start(command, **options) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run_cases(cases: str, size: int, folder) -> None:
    script = Path(__file__).with_name("process_problem.py")
    ranks = [
        start([sys.executable, str(script), cases, str(rank), str(size), str(folder)], env=environment())
        for rank in range(size)
    ]
    for code, _, errors in finish(ranks):
        assert code == 0, errors


def torchrun_says(size: int) -> dict:
    """What torchrun would put into the environment, but for the RANK."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}


def start_command(size: int, folder, *arguments) -> list[subprocess.Popen]:
    where, command = torchrun_says(size), [sys.executable, "-m", "l0fast", *map(str, arguments)]
    return [start(command, cwd=folder, env=environment(**where, RANK=str(rank))) for rank in range(size)]


@pytest.fixture
def alone(folder, monkeypatch):
    """Runs the command as torchrun's only process, here."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments) -> int:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name, value in torchrun_says(1).items():
                patch.setenv(name, value)
            patch.setenv("RANK", "0")
            return cli.main([str(argument) for argument in arguments])

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What process_problem.py leaves behind for 1, 2 and 4 processes."""
    folder = tmp_path_factory.mktemp("processes")
    cases = ",".join(process_problem.CASES)
    run_cases(f"{cases},bad_input", 2, folder)
    run_cases(",".join(AT_FOUR), 4, folder)
    process_problem.run(cases, 0, 1, folder)
    return folder


@pytest.mark.parametrize(
    ("case", "size"), [*((case, 2) for case in process_problem.CASES), *((case, 4) for case in AT_FOUR)]
)
def test_any_number_of_processes_gives_the_same_weights(results, case, size):
    one, many = (np.load(results / f"{case}.{n}.npz") for n in (1, size))
    assert one["weights"].shape == (N_RECORDS,) and 0 < (one["weights"] > 0).sum() < N_RECORDS
    np.testing.assert_array_equal(many["weights"] > 0, one["weights"] > 0)
    np.testing.assert_allclose(many["weights"], one["weights"], rtol=RTOL)
    np.testing.assert_allclose(many["loss"], one["loss"], rtol=RTOL)
    for name in ("active", "mean_error", "totals"):
        np.testing.assert_allclose(many[name], one[name], rtol=RTOL)


def test_the_cases_do_what_they_are_for(results):
    weights = {case: np.load(results / f"{case}.4.npz")["weights"] for case in AT_FOUR}
    assert (weights["exact"] > 0).sum() == 37 and abs((weights["budget"] > 0).sum() - 60) <= 1
    M, _ = process_problem.survey_of("refit")
    used = [(weights["refit"][s.slice] > 0).sum() for s in process_problem.shard_bounds(M.indptr, 4)]
    assert used[-1] == 0 and used[0] > 0, "a process without records in use takes part in the refit"
    M = process_problem.survey_of("gates")[0]
    last = np.load(results / "gates.4.npz")["totals"][-1]
    np.testing.assert_allclose(last, M @ weights["gates"].astype(float), rtol=RTOL)


def test_checkpoints_are_one_file_of_the_whole_run(results):
    with safe_open(results / "exact.4.safetensors", framework="np") as many:
        with safe_open(results / "exact.1.safetensors", framework="np") as one:
            assert many.metadata()["signature"] == one.metadata()["signature"]
            assert set(many.keys()) == set(one.keys()) >= {"unsettled_indices", "generator"}
            for name in one.keys():
                np.testing.assert_allclose(many.get_tensor(name), one.get_tensor(name), rtol=RTOL, atol=1e-12)


def test_bad_input_is_refused_everywhere(results):
    assert (results / "refused.0").exists() and (results / "refused.1").exists()


# -- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    M, y = survey()
    sp.save_npz(tmp_path / "matrix.npz", sp.csr_array(M))
    rows = [(f"t{j}", repr(float(value)), f"g{j % 3}") for j, value in enumerate(y)]
    write_csv(tmp_path / "targets.csv", ("name", "value", "group"), rows)
    np.save(tmp_path / "w0.npy", np.linspace(0.5, 1.5, N_RECORDS))
    return tmp_path


CALIBRATE = ("calibrate", "matrix.npz", "--targets", "targets.csv", "--init-weights", "w0.npy", "--verbose-freq", 25)


def test_command_in_two_processes(folder, alone, capsys):
    options = ("--epochs", 50, "--target-records", 120, "--refit", 40, "--log", "log{0}.csv", "--json", "run{0}.json")
    options += ("--diagnostics", "targets{0}.csv", "--report", "run{0}.html", "-o", "w{0}.npy")
    ranks = finish(start_command(2, folder, *CALIBRATE, *(str(option).format(2) for option in options)))
    assert all(code == 0 for code, _, _ in ranks), ranks
    assert not ranks[1][1], "only the first process speaks"
    assert alone(*CALIBRATE, *(str(option).format(1) for option in options)) == 0
    heads = ("epoch", "budget", "refit", "mean relative error")
    said = [
        [line.rpartition(",")[0] for line in text.splitlines() if line.startswith(heads)]
        for text in (capsys.readouterr().out, ranks[0][1])
    ]
    assert said[0] == said[1] and len(said[0]) == 5
    one, two = (np.load(folder / f"w{size}.npy") for size in (1, 2))
    assert (one > 0).sum() == 120
    np.testing.assert_allclose(two, one, rtol=RTOL)
    for name in ("log", "targets"):
        rows = [read_csv(folder / f"{name}{size}.csv") for size in (1, 2)]
        assert len(rows[0]) == len(rows[1]) >= 30
        key = "estimate" if name == "log" else "after"
        np.testing.assert_allclose(*([float(row[key]) for row in table] for table in rows), rtol=RTOL)
    assert '"processes": 2' in (folder / "run2.json").read_text()
    assert (folder / "run2.html").stat().st_size > 10_000


def test_records_of_a_parquet_file_in_two_processes(folder, alone):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"id": [f"r{k}" for k in range(90)], "x": rng.uniform(1, 9, 90), "w": np.ones(90)})
    frame["half"] = np.where(np.arange(90) < 45, "a", "b")
    frame.to_parquet(folder / "records.parquet", row_group_size=20)
    rows = [("ones", "1", "", 100), ("a", "x", "half == 'a'", 260), ("b", "x", "half == 'b'", 210)]
    write_csv(folder / "words.csv", ("name", "measure", "filter", "value"), rows)
    arguments = ("calibrate", "--data", "records.parquet", "--targets", "words.csv", "--id", "id", "--weight", "w")
    assert alone(*arguments, "--epochs", 40, "-o", "w1.csv") == 0
    ranks = finish(start_command(2, folder, *arguments, "--epochs", 40, "-o", "w2.csv"))
    assert all(code == 0 for code, _, _ in ranks), ranks
    one, two = (read_csv(folder / f"w{size}.csv") for size in (1, 2))
    assert [row["id"] for row in two] == frame["id"].tolist()
    np.testing.assert_allclose(*([float(row["weight"]) for row in table] for table in (two, one)), rtol=RTOL)


def test_bad_input_is_said_once(folder):
    write_csv(folder / "targets.csv", ("name", "value"), [("only", 1.0)])
    ranks = finish(start_command(2, folder, *CALIBRATE, "-o", "w.npy"))
    assert [code for code, _, _ in ranks] == [2, 2], ranks
    lines = [line for _, _, errors in ranks for line in errors.splitlines() if line.startswith("l0fast")]
    assert len(lines) == 1 and "--targets: expected 30 targets" in lines[0]


def wait_for_epoch(path: Path, epoch: int) -> None:
    """Until the checkpoint is of that epoch or a later one."""
    limit = time.monotonic() + LIMIT
    while not path.exists() or saved_epoch(path) < epoch:
        assert time.monotonic() < limit, "no checkpoint"
        time.sleep(0.05)


def saved_epoch(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return int(file.metadata()["epoch"])


ENDLESS = (*CALIBRATE, "--epochs", 10**6, "-o", "w.npy", "--checkpoint", "run.safetensors", "--checkpoint-freq", 20)


def test_sigterm_of_one_process_stops_all_after_the_same_epoch(folder):
    ranks = start_command(2, folder, *ENDLESS)
    wait_for_epoch(folder / "run.safetensors", 1)
    ranks[1].send_signal(signal.SIGTERM)
    (code, _, errors), (other, _, _) = finish(ranks)
    assert (code, other) == (130, 130), errors
    epoch = saved_epoch(folder / "run.safetensors")
    assert f"interrupted after {epoch:,} of 1,000,000 epochs; saved in run.safetensors" in errors


def worker(launcher: int, rank: int) -> int:
    """The pid of torchrun's child of that rank."""
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) if entry.name.isdigit() else 0
            if parent == launcher and f"RANK={rank}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds torchrun's processes in /proc")
def test_a_lost_process_leaves_a_checkpoint_for_any_number(folder, alone):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "l0fast"]
    # A file for each epoch keeps a fast machine from doing thousands of them before the kill: over so many a rounding
    # grows, and a nearly closed gate multiplies it (docs/many_processes.md).
    slow = (*map(str, ENDLESS[:-1]), "1")
    launcher = start([*run, *slow], cwd=folder, env=environment())
    path = folder / "run.safetensors"
    try:
        wait_for_epoch(path, 20)
        os.kill(worker(launcher.pid, 1), signal.SIGKILL)
    finally:
        ((code, _, errors),) = finish([launcher])
    assert code != 0
    epoch = saved_epoch(path)
    assert "l0fast: error: process_group: process 0 of 2 lost another one, which has ended or not answered" in errors
    assert f"the checkpoint run.safetensors of epoch {epoch:,} can be resumed with any number of processes" in errors
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == [], "no half file"

    last = epoch + 60
    content = path.read_bytes()
    resume = ("--epochs", last, "--checkpoint", path.name, "--resume", "-o")
    assert [code for code, _, _ in finish(start_command(3, folder, *CALIBRATE, *resume, "w3.npy"))] == [0] * 3
    path.write_bytes(content)
    assert alone(*CALIBRATE, *resume, "w1.npy") == 0
    assert alone(*CALIBRATE, "--epochs", last, "-o", "whole.npy") == 0
    whole = np.load(folder / "whole.npy")
    for size in (1, 3):
        np.testing.assert_allclose(np.load(folder / f"w{size}.npy"), whole, rtol=RTOL)
