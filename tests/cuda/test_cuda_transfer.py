"""A matrix on its way to the GPU and back: the same bytes, in one piece and in many, to any of the devices."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from l0fast.calibration import SparseCalibrationWeights, matrix, memory, transfer
from l0fast.calibration.matrix import pack


def example(n_targets=30, n_records=2000):
    return sp.random(n_targets, n_records, density=0.2, format="csr", random_state=1)


@pytest.mark.parametrize("piece_bytes", [8, 1000, 64 << 20])
@pytest.mark.parametrize("n_targets", [30, 70_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_and_back(gpu, monkeypatch, piece_bytes, n_targets, dtype):
    monkeypatch.setattr(transfer, "PIECE_BYTES", piece_bytes)
    M = example(n_targets, 200 if n_targets == 30 else 5)
    there, here = pack(M, dtype, device="cuda"), pack(M, dtype)
    assert there.device == gpu and there.dtype == dtype
    for name in ("indptr", "rows", "values"):
        assert torch.equal(getattr(there.to("cpu"), name), getattr(here, name))
    assert there.sha256() == here.sha256()
    assert torch.equal(here.to(gpu, torch.float64).values.cpu(), here.values.double())


def test_every_gpu_by_number():
    for k in range(torch.cuda.device_count()):
        packed = pack(example(), device=f"cuda:{k}")
        assert packed.device == torch.device("cuda", k) and packed.sha256() == pack(example()).sha256()


def test_an_empty_matrix(gpu):
    packed = pack(sp.csr_array((3, 4)), device=gpu)
    assert packed.nnz == 0 and packed.indptr.tolist() == [0] * 5


def test_the_estimate_holds(gpu):
    """A fit takes no more than was said, but for what one kernel or graph of torch itself may take."""
    M = example(300, 100_000)
    needed = memory.fit_bytes(M.nnz, *reversed(M.shape))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = SparseCalibrationWeights(100_000, device="cuda", seed=0)
    model.fit(M, np.ones(300), epochs=3)
    assert torch.cuda.max_memory_allocated() - before <= needed.total


def test_a_matrix_that_cannot_fit_is_not_packed(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (0, 0))
    monkeypatch.setattr(matrix, "pack_arrays", lambda *arguments: pytest.fail("packing has begun"))
    torch.cuda.empty_cache()
    with pytest.raises(MemoryError, match=r"device: expected .* free on cuda:0"):
        pack(sp.random(1000, 1_000_000, density=0.01, format="csr"), device=gpu)


def test_a_model_moves_with_its_run(gpu):
    """model.to() between two fits, back too: moments and noise go along."""
    M, y = example(), np.full(30, 100.0)
    split, whole = (SparseCalibrationWeights(2000, seed=0) for _ in range(2))
    whole.fit(M, y, epochs=6, loss_type="relative", lr=0.05)
    split.fit(M, y, epochs=2, loss_type="relative", lr=0.05)
    split.to(gpu).fit(M, y, epochs=2, loss_type="relative", lr=0.05, resume=True)
    assert split.device == gpu and split._run.seed.device == gpu
    split.to("cpu").fit(M, y, epochs=2, loss_type="relative", lr=0.05, resume=True)
    torch.testing.assert_close(split.log_weight, whole.log_weight, rtol=1e-3, atol=1e-4)
    assert split.to(gpu).forward(M).device == gpu  # its seeds come from a generator on the CPU
