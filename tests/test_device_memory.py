"""The estimate of a device's memory, and that it is asked before a matrix is packed."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from cli_problem import CALIBRATE, fails, problem_folder, run  # noqa: F401 - a fixture

from l0fast import cli
from l0fast.calibration import SparseCalibrationWeights, matrix, memory, packed_matrix
from l0fast.cli import check, device
from l0fast.sparse import SparseL0Linear

CUDA = torch.device("cuda:0")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_targets", [9, 70_000])
def test_matrix_bytes_are_those_of_the_packed_matrix(dtype, n_targets):
    M = sp.random(n_targets, 50, density=200 / (n_targets * 50), format="csr", random_state=1)
    packed = matrix.pack(M, dtype)
    assert memory.matrix_bytes(M.nnz, 50, n_targets, dtype.itemsize) == packed.nbytes


def test_fit_bytes_count_what_a_fit_holds():
    """State and targets against the tensors of a real run."""
    n_targets, n_records = 12, 60
    M = sp.random(n_targets, n_records, density=0.3, format="csr", random_state=1)
    model = SparseCalibrationWeights(n_records, seed=0)
    model.fit(M, np.ones(n_targets), epochs=1, loss_type="relative_epsilon", target_tolerances=0.1)
    held = [model.log_weight, model.log_alpha, *model._run.moments.values(), model.get_deterministic_gates()]
    estimate = memory.fit_bytes(M.nnz, n_records, n_targets)
    assert estimate.state == sum(x.nbytes for x in held)
    assert estimate.matrix == model.pack(M).nbytes
    assert estimate.targets == n_targets * (4 * 8 + 4)
    assert estimate.total == estimate.matrix + estimate.state + estimate.targets + estimate.workspace


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with the given free memory, as far as torch.cuda is asked."""

    def with_free(count, reserved=0, allocated=0):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (count, 80_000_000_000))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device=None: reserved)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device=None: allocated)
        monkeypatch.setattr(matrix, "exact_device", lambda device: CUDA)
        monkeypatch.setattr(device, "check_device", lambda name: CUDA)

    return with_free


def test_workspace_covers_what_the_kernels_allocate():
    """Chunks of long columns counted by hand, at their worst: every column one nonzero beyond the limit."""
    lengths = np.full(100, 2049)
    chunks = int(np.ceil(lengths / 2048).sum())
    estimate = memory.fit_bytes(int(lengths.sum()), 100, 5000)
    assert 0 <= estimate.workspace - (64 << 20) - 20 * 5000 - 8 * 100 - 24 * chunks <= 24 * 4


def test_free_bytes(gpu, monkeypatch):
    assert memory.free_bytes(torch.device("cpu")) is None
    gpu(1000, reserved=500, allocated=200)
    assert memory.free_bytes(CUDA) == 1300
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory.free_bytes(CUDA) is None


def test_too_little_is_said_with_numbers_and_a_way_out(gpu):
    needed = memory.fit_bytes(400_000_000, 5_200_000, 13_000)
    gpu(needed.total - 1)
    text = (
        r"^device: expected 2\.\d GB free on cuda:0 \(matrix 2\.4 GB, state 145\.6 MB, targets 0\.5 MB, workspace "
        r"118\.3 MB\), got 2\.\d GB; take another device, fewer targets or records, or device='cpu'$"
    )
    with pytest.raises(MemoryError, match=text):
        memory.require(needed, CUDA)
    gpu(needed.total)
    memory.require(needed, CUDA)


def forbidden(*arguments):
    raise AssertionError("packing has begun")


def test_pack_asks_before_it_packs(gpu, monkeypatch):
    M = sp.random(20, 300, density=0.2, format="csr", random_state=1)
    packed = matrix.pack(M)
    gpu(packed.nbytes - 1)
    monkeypatch.setattr(packed_matrix, "pack_arrays", forbidden)
    monkeypatch.setattr(packed_matrix, "to_cuda", forbidden)
    for given in (M, M.tocsc(), M.tocoo(), packed):
        with pytest.raises(MemoryError, match=r"device: expected .* free on cuda:0"):
            matrix.pack(given, device="cuda")
    gpu(packed.nbytes)
    with pytest.raises(AssertionError, match="packing has begun"):
        matrix.pack(M, device="cuda")


@pytest.mark.parametrize("kind", [SparseCalibrationWeights, SparseL0Linear])
def test_a_fit_asks_for_more_than_a_prediction(kind, monkeypatch):
    """Here the CPU stands for a device whose memory is known; a matrix that is there already costs nothing more."""
    M = sp.random(20, 300, density=0.2, format="csr", random_state=1)
    y = np.ones(20)
    model = kind(300, seed=0)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    monkeypatch.setattr(memory, "free_bytes", lambda device: memory.matrix_bytes(M.nnz, 300, 20))
    with pytest.raises(MemoryError, match=r"device: expected .* free on cpu .*state"):
        model.fit(M, y, epochs=1)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items()) and model.epoch == 0
    model.predict(M)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    model.predict(M)
    model.fit(M, y, epochs=1)
    with pytest.raises(MemoryError):
        model.predict(M * 2)


CHECK = ("check", "matrix.npz", "--targets", "targets.csv", "--init-weights", "w0.npy", "--epochs", 40)


def test_check_without_a_gpu_still_estimates(problem, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(*CHECK, "--device", "cuda:1") == 0
    output = capsys.readouterr().out
    assert "memory on cuda:1 about" in output and "workspace" in output and "no errors" in output
    assert "no device to compare that with: torch " in output
    assert "time about" not in output  # that of this machine's CPU would mislead


def test_check_compares_with_the_gpu(problem, gpu, monkeypatch, capsys):
    monkeypatch.setattr(check, "_time_an_epoch", lambda problem, options: 0.5)
    gpu(40_000_000_000)
    assert run(*CHECK, "--device", "cuda") == 0
    output = capsys.readouterr().out
    assert "free on cuda: 40.0 GB" in output and "time about 20.0 s for 40 epochs" in output
    gpu(1_000_000)
    fails(capsys, *CHECK, "--device", "cuda", says="error: out of memory: device: expected 67.")


def test_calibrate_says_it_in_one_line(problem, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(packed_matrix, "pack_arrays", forbidden)
    fails(capsys, *CALIBRATE, "--output", "w.npy", says="error: out of memory: device: expected 67.")
    assert not (problem / "w.npy").exists()


def test_an_allocation_that_fails_after_all(problem, monkeypatch, capsys):
    def fit(self, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")

    monkeypatch.setattr(SparseCalibrationWeights, "fit", fit)
    says = "error: --device: out of memory on cpu: CUDA out of memory. Tried to allocate 2.00 GiB."
    fails(capsys, *CALIBRATE, "--output", "w.npy", says=says)
    fails(capsys, *CHECK, says=says)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_calibrate_needs_the_device(problem, capsys):
    fails(capsys, *CALIBRATE, "--output", "w.npy", "--device", "cuda", says="--device: cannot use cuda: ")


@pytest.mark.parametrize("command", [(*CALIBRATE, "--output", "w.npy"), CHECK], ids=["calibrate", "check"])
@pytest.mark.parametrize(
    ("name", "says"), [("abacus", "--device: cannot use abacus"), ("meta", "--device: expected cpu or cuda, got meta")]
)
def test_other_devices(problem, command, name, says, capsys):
    fails(capsys, *command, "--device", name, says=says)


def test_memory_error_without_words(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_command", lambda name: lambda options: (_ for _ in ()).throw(MemoryError()))
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == "l0fast: error: out of memory\n"


def test_the_length_of_a_chunk_is_the_kernels():
    header = Path(__file__).parents[1] / "csrc" / "cuda" / "calibration_plan.h"
    (length,) = re.findall(r"kLongColumn = (\d+);", header.read_text())
    assert int(length) == memory.LONG_COLUMN


def test_a_mass_needs_room_for_a_second_matrix(monkeypatch):
    """Here the CPU stands for the device; packing has been done by then."""
    M = sp.random(20, 300, density=0.2, format="csr", random_state=1)
    model = SparseCalibrationWeights(300, seed=0, log_weight_jitter_sd=0.1)
    packed, before = model.pack(M), model.log_weight.detach().clone()
    second = memory.matrix_bytes(packed.nnz + 300, 300, 21)
    fit = {"epochs": 2, "mass": "conserve"}
    monkeypatch.setattr(memory, "free_bytes", lambda device: second - 1)
    with pytest.raises(MemoryError, match="device: expected"):
        model.fit(packed, np.ones(20), **fit)
    assert torch.equal(model.log_weight, before) and model.epoch == 0
    monkeypatch.setattr(memory, "free_bytes", lambda device: second)
    assert model.fit(packed, np.ones(20), **fit).epoch == 2
