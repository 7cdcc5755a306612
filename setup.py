"""Builds the compiled parts: ``_C`` (torch ops, stable ABI), ``_C_cuda`` (their CUDA kernels), ``_host`` (arrays only).

Needs torch, setuptools and a C++17 compiler, nothing else; ninja is used where it is installed.
``L0FAST_CUDA`` = 0, 1 or auto (default) says whether the CUDA kernels are built: auto does where torch is a CUDA build
and CUDA_HOME has nvcc. ``TORCH_CUDA_ARCH_LIST`` says for which GPUs (cuda_toolkit.py has the default); whether this
machine has one does not matter.
"""

import importlib.util
import os
import sys
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, include_paths

sys.path.insert(0, str(Path(__file__).resolve().parent))  # pip does not
import cuda_toolkit

CSRC = Path("csrc")
# -O3 for the vectoriser. No -ffast-math: it would set flush-to-zero for the whole process, and NaN checks would vanish.
FLAGS = [
    "-O3",
    "-g0",  # Python's own flags ask for debug information: ten times the size
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    *cuda_toolkit.HOST_WARNINGS,
]
# L0FAST_EXTRA_FLAGS: e.g. "-fsanitize=address,undefined" (see `make sanitize`).
EXTRA = os.environ.get("L0FAST_EXTRA_FLAGS", "").split()


def sources(folder):
    return sorted(str(p) for p in (CSRC / folder).glob("*.cpp"))


def ops_extension():
    return CppExtension(
        "l0fast._C",
        [str(CSRC / "library.cpp"), *sources("cpu")],
        include_dirs=[str(CSRC.resolve())],
        extra_compile_args={"cxx": [*FLAGS, cuda_toolkit.STABLE_TARGET, *EXTRA]},
        extra_link_args=EXTRA,
        py_limited_api=True,
    )


def host_extension():
    """Arrays only: it borrows torch's copy of pybind11's headers and links nothing of torch."""
    return Extension(
        "l0fast._host",
        sources("host"),
        include_dirs=[str(CSRC.resolve()), *include_paths()],
        extra_compile_args={"cxx": [*FLAGS, *EXTRA]},
        extra_link_args=EXTRA,
        language="c++",
    )


def cuda_extension():
    """No CUDAExtension: that one links the shared runtime and torch's C++ interface to CUDA."""
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", cuda_toolkit.ARCHITECTURES)  # else torch asks for the GPUs at hand
    return CppExtension(
        "l0fast._C_cuda",
        [os.path.relpath(source) for source in cuda_toolkit.cuda_sources()],
        include_dirs=[str(CSRC.resolve())],
        libraries=["torch_cuda"],  # it has the stable functions about streams
        library_dirs=cuda_toolkit.library_folders(Path(CUDA_HOME, "bin", "nvcc")),
        extra_compile_args={"nvcc": cuda_toolkit.NVCC_FLAGS},
        extra_link_args=cuda_toolkit.CUDART,
        py_limited_api=True,
    )


def missing_for_cuda() -> str | None:
    """What the CUDA kernels cannot be built without, in words; None where everything is there."""
    if not cuda_toolkit.cuda_sources():
        return "this version of l0fast has no CUDA sources"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA; install one with it"
    if CUDA_HOME is None:
        return "there is no CUDA toolkit: set CUDA_HOME to one, or put its nvcc on the PATH"
    if not os.access(Path(CUDA_HOME, "bin", "nvcc"), os.X_OK):
        return f"there is no nvcc in CUDA_HOME={CUDA_HOME}"
    return None


def wants_cuda() -> bool:
    wanted = os.environ.get("L0FAST_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        raise SystemExit(f"L0FAST_CUDA: expected 0, 1 or auto, got {wanted!r}")
    missing = missing_for_cuda()
    if wanted == "1" and missing:
        raise SystemExit(f"L0FAST_CUDA=1: cannot build the CUDA kernels: {missing}; or build with L0FAST_CUDA=0")
    return wanted != "0" and missing is None


setup(
    ext_modules=[ops_extension(), host_extension(), *([cuda_extension()] if wants_cuda() else [])],
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=importlib.util.find_spec("ninja") is not None)},
)
