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


def test_import_prints_nothing():
    output = subprocess.run([sys.executable, "-c", "import l0fast"], capture_output=True, text=True, check=True)
    assert output.stdout == output.stderr == ""
