"""The build itself: without this test, a build that failed would only look like many skipped tests."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from l0fast import _load


@pytest.mark.skipif(_load.forced_fallback(), reason="L0FAST_FALLBACK is set")
def test_both_libraries_are_built_and_load():
    assert _load.native_error() is None
    assert _load.host() is not None
    assert "fallback" not in _load.instruction_set()


def test_stable_abi_only(native):
    """The ops library uses no symbol of torch's C++ ABI: one build runs under every torch from 2.10 on."""
    library = next(Path(_load.__file__).parent.glob("_C.*so"))
    names = subprocess.run(
        ["nm", "-DC", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    unstable = [line for line in names.splitlines() if " at::" in line or " c10::" in line or " torch::" in line]
    assert not unstable


def test_a_broken_library_says_why(tmp_path, monkeypatch):
    (tmp_path / "_C.abi3.so").write_bytes(b"not a library")
    monkeypatch.setattr(_load, "_HERE", tmp_path)
    monkeypatch.delenv("L0FAST_FALLBACK", raising=False)
    assert _load._load_native().startswith(f"_C.abi3.so does not load under torch {torch.__version__}: ")
    (tmp_path / "_C.abi3.so").unlink()
    assert _load._load_native() == f"no compiled library _C in {tmp_path}"


def test_why_the_cuda_kernels_are_missing(tmp_path, monkeypatch):
    """A reason of their own: the CPU kernels are not affected."""
    monkeypatch.setattr(_load, "_HERE", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    (tmp_path / "_C_cuda.abi3.so").write_bytes(b"not a library")
    assert _load._load_cuda(None) == f"torch {torch.__version__} is a build without CUDA"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert _load._load_cuda("no compiled library _C") == "no compiled library _C"
    assert _load._load_cuda(None).startswith(f"_C_cuda.abi3.so does not load under torch {torch.__version__}: ")
    assert _load.library("_C") is None
    (tmp_path / "_C_cuda.abi3.so").unlink()
    assert _load._load_cuda(None) == f"no compiled library _C_cuda in {tmp_path}"


class Elsewhere:
    """Stands for a tensor on a device that is not in this machine."""

    def __init__(self, device):
        self.device = torch.device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_tensors_take_the_kernels_where_they_are_loaded(device, monkeypatch, recwarn):
    monkeypatch.delenv("L0FAST_FALLBACK", raising=False)
    _load.warn_fallback.cache_clear()
    monkeypatch.setattr(_load, "_NATIVE_ERROR", None)
    monkeypatch.setattr(_load, "_CUDA_ERROR", None)
    assert _load.native_for(Elsewhere(device)) and not recwarn.list
    assert not _load.native_for(Elsewhere("xpu"))  # loaded kernels of one kind say nothing of another
    monkeypatch.setattr(_load, "_CUDA_ERROR", "no compiled library _C_cuda in /somewhere")
    with pytest.warns(
        RuntimeWarning, match=r"_C_cuda in /somewhere; build it with `L0FAST_CUDA=1 python -m pip .* nvcc"
    ):
        assert not _load.native_for(Elsewhere(device))
    assert _load.native_for(Elsewhere("cpu"))
    monkeypatch.setattr(_load, "_NATIVE_ERROR", "no compiled library _C in /somewhere")
    monkeypatch.setattr(_load, "_CUDA_ERROR", None)
    with pytest.warns(RuntimeWarning, match="_C in /somewhere; build it with `python -m pip"):
        assert not _load.native_for(Elsewhere(device))
    _load.warn_fallback.cache_clear()


@pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build of torch")
def test_cuda_library_is_loaded_where_it_was_built():
    if _load.library("_C_cuda") is None:
        pytest.skip("_C_cuda was not built (L0FAST_CUDA)")
    assert _load.forced_fallback() or _load.cuda_error() is None


def test_import_prints_nothing():
    output = subprocess.run([sys.executable, "-c", "import l0fast"], capture_output=True, text=True, check=True)
    assert output.stdout == output.stderr == ""
