"""How the CUDA passes over a matrix are laid out, checked in plain C++: tests/cuda/calibration_plan_test.cpp."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPILER = shutil.which(os.environ.get("CXX", "g++"))


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the sources")
def test_every_nonzero_is_taken_once(tmp_path):
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "csrc")]
    program = tmp_path / "calibration_plan_test"
    source = ROOT / "tests" / "cuda" / "calibration_plan_test.cpp"
    subprocess.run([COMPILER, *flags, str(source), "-o", str(program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout.split()[0]) > 200
