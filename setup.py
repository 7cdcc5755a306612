"""Builds the compiled parts: ``_C`` (torch ops, stable ABI) and ``_host`` (pybind11, arrays only).

Needs torch, setuptools and a C++17 compiler, nothing else; ninja is used where it is installed.
``L0FAST_CUDA`` = 0, 1 or auto (default) says whether the CUDA ops are built too.
"""

import importlib.util
import os
from pathlib import Path

from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

CSRC = Path("csrc")
# 2.10 is the oldest torch whose stable ABI has everything used here; the library then loads under every later one.
STABLE_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"
# -O3 for the vectoriser. No -ffast-math: it would set flush-to-zero for the whole process, and NaN checks would vanish.
FLAGS = [
    "-O3",
    "-g0",  # Python's own flags ask for debug information: ten times the size
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
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
        extra_compile_args={"cxx": [*FLAGS, STABLE_TARGET, *EXTRA]},
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


def check_cuda_request():
    wanted = os.environ.get("L0FAST_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        raise SystemExit(f"L0FAST_CUDA: expected 0, 1 or auto, got {wanted!r}")
    if wanted == "1" and not (CSRC / "cuda").is_dir():
        raise SystemExit("L0FAST_CUDA=1: this version of l0fast has no CUDA sources; build with L0FAST_CUDA=0")


check_cuda_request()
setup(
    ext_modules=[ops_extension(), host_extension()],
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=importlib.util.find_spec("ninja") is not None)},
)
