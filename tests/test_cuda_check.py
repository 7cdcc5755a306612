"""The parts of ``make cuda-check`` that need no compiler: they must notice what it is there to notice."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(path):
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


cuda_toolkit = load(ROOT / "cuda_toolkit.py")
check = load(ROOT / "tests" / "cuda" / "check.py")

PTXAS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4goodPf' for 'sm_80'
ptxas info    : Function properties for _Z4goodPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 1 barriers, 1056 bytes smem, 360 bytes cmem[0]
ptxas info    : Compile time = 3.1 ms
ptxas info    : Compiling entry function '_Z3badPf' for 'sm_90'
ptxas info    : Function properties for _Z3badPf
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
ptxas info    : Function properties for _Z6calledv
    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""


def test_the_compilers_report_is_read():
    bad, good, called = check.ptxas_report("a.cu", PTXAS)  # in the order of their names
    assert (good.name, good.architecture, good.registers, good.shared) == ("_Z4goodPf", "sm_80", 12, 1056)
    assert (good.stack, good.spills) == (0, 0)
    assert (bad.name, bad.architecture, bad.registers, bad.shared) == ("_Z3badPf", "sm_90", 255, 0)
    assert (bad.stack, bad.spills) == (16, 12)
    assert (called.name, called.registers, called.stack) == ("_Z6calledv", None, 32)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void l0fast::cuda::each<4, l0fast::cuda::(anonymous namespace)::F<float> >(long)", "each<4, F<float>>"),
        ("l0fast::cuda::plain(int, float*)", "plain"),
        ("void f<void (int)>(long)", "f<void (int)>"),
    ],
)  # fmt: skip
def test_names_are_shortened(name, short):
    assert check.short_name(name) == short


def test_symbols_that_nothing_promises_are_named():
    rows = ["aoti_torch_get_dim", "torch_call_dispatcher", "malloc@GLIBC_2.2.5", "_ZTISt9exception@GLIBCXX_3.4"]
    rows += ["_ZNSt7__cxx1119basic_ostringstreamIcSt11char_traitsIcESaIcEEC1Ev"]
    good = "".join(f"                 U {symbol}\n" for symbol in rows) + "                 w __gmon_start__\n"
    assert check.unpromised_symbols(good) == []
    for symbol in ("cudaMalloc", "_ZN2at5emptyEv", "cuLaunchKernel", "_ZN6l0fast4cuda6launchEv"):
        assert check.unpromised_symbols(good + f"                 U {symbol}\n") == [symbol]


def test_architectures():
    flags = ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90"]
    flags += ["-gencode=arch=compute_90,code=compute_90"]
    assert cuda_toolkit.architecture_flags("8.0;9.0+PTX") == flags


def test_without_nvcc_it_is_skipped_in_one_line_or_refused(monkeypatch, capsys):
    monkeypatch.setattr(check.cuda_toolkit, "find_nvcc", lambda: None)
    assert check.main(["--optional"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("cuda-check: skipped, there is no nvcc") and output.count("\n") == 1
    assert check.main([]) == 2


LOCAL_MEMORY = """
void missing();
__global__ void wandering(float* x, int k) {
  float a[64];
  for (int i = 0; i < 64; ++i) a[(i * k) & 63] = x[i];
  for (int i = 0; i < 64; ++i) x[i] = a[(i * i * k) & 63];
}
void use() { wandering<<<1, 1>>>(nullptr, 1), missing(); }
"""


@pytest.mark.skipif(cuda_toolkit.find_nvcc() is None, reason="there is no nvcc here")
def test_planted_faults_are_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "BUILD", tmp_path)
    source = tmp_path / "planted.cu"
    source.write_text(LOCAL_MEMORY)
    wrong = check.check(cuda_toolkit.find_nvcc(), [source])
    assert any(
        re.fullmatch(r"planted.cu: wandering on sm_90 has \d{3} bytes of stack and 0 of spills", x) for x in wrong
    )
    assert "_C_cuda needs _Z7missingv, which nothing promises" in wrong
    assert re.search(r"planted.cu +sm_80 +\d+ +0 +256 +0 +wandering", capsys.readouterr().out)
    source.write_text("__global__ void lazy(float* x) { int unused; }\n")
    assert 'variable "unused" was declared but never referenced' in check.check(cuda_toolkit.find_nvcc(), [source])[0]


def test_setup_says_what_is_missing_for_cuda():
    """Under a CPU build of torch L0FAST_CUDA=1 cannot be obeyed."""
    code = (
        "import sys, torch; torch.version.cuda = None; sys.argv = ['setup.py', '--name']; exec(open('setup.py').read())"
    )
    for wanted, message in {
        "1": "L0FAST_CUDA=1: cannot build the CUDA kernels: torch .* is a build without CUDA",
        "yes": "L0FAST_CUDA: expected 0, 1 or auto, got 'yes'",
    }.items():
        environment = {**os.environ, "L0FAST_CUDA": wanted}
        command = [sys.executable, "-c", "__file__ = 'setup.py'; " + code]
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert result.returncode == 1
        assert re.search(message, result.stderr), result.stderr
