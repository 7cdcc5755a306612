"""How CUDA kernels deal out their work, checked in plain C++ on a CPU: tests/cuda/plans_test.cpp."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPILER = shutil.which(os.environ.get("CXX", "g++"))


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the sources")
def test_every_element_is_taken_once_and_reaches_its_gate(tmp_path):
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "csrc")]
    program = tmp_path / "plans_test"
    subprocess.run([COMPILER, *flags, str(ROOT / "tests/cuda/plans_test.cpp"), "-o", str(program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    cases, _ = result.stdout.split()
    assert int(cases) > 2000
