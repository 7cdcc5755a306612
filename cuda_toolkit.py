"""How the CUDA sources are compiled: the one place that setup.py and tests/cuda/check.py share. Needs no torch."""

import os
import re
import shutil
import subprocess
from pathlib import Path

CSRC = Path(__file__).parent / "csrc"

ARCHITECTURES = "8.0;9.0+PTX"
"""Where TORCH_CUDA_ARCH_LIST does not say otherwise: Ampere, Hopper, and PTX for what comes later."""

# 2.10 is the oldest torch whose stable ABI has everything used here; the library then loads under every later one.
STABLE_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"

HOST_WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter")

# No --use_fast_math: it flushes denormals and its logarithm is off by more than the tests allow.
NVCC_FLAGS = [
    "-O3",
    "-std=c++17",
    STABLE_TARGET,
    "-DUSE_CUDA",  # torch's shim.h declares the functions about streams only then
    "-Xcompiler=-fvisibility=hidden," + ",".join(HOST_WARNINGS),
]

# The static runtime depends on no version of libcudart. Its symbols stay inside: torch has loaded a libcudart of its
# own whose functions would otherwise take the place of these.
CUDART = ["-Wl,--exclude-libs,libcudart_static.a", "-lcudart_static", "-lrt", "-ldl", "-lpthread"]


def cuda_sources() -> list[Path]:
    return sorted((CSRC / "cuda").glob("*.cu"))


def find_nvcc() -> Path | None:
    """nvcc of CUDA_HOME, on the PATH or in /usr/local/cuda; None where there is none."""
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [Path(folder) / "bin" / "nvcc" for folder in folders if folder]
    if on_path := shutil.which("nvcc"):
        candidates.append(Path(on_path))
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def library_folders(nvcc: Path) -> list[str]:
    """Where nvcc itself looks for the runtime: CUDA_HOME/lib64 in one installation, another folder in the next.

    Raises:
        RuntimeError: nvcc does not say, or libcudart_static.a is in none of its folders.
    """
    command = [str(nvcc), "--dryrun", "-x", "cu", os.devnull]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    line = re.search(r"^#\$ LIBRARIES=(.*)$", said, re.MULTILINE)
    folders = re.findall(r'"-L([^"]+)"', line[1]) if line else []
    if not any((Path(folder) / "libcudart_static.a").is_file() for folder in folders):
        raise RuntimeError(f"{nvcc}: expected libcudart_static.a in one of {folders or 'its library folders'}")
    return folders


def architecture_flags(architectures: str) -> list[str]:
    """'8.0;9.0+PTX' as nvcc takes it: machine code for each, and PTX where it says so."""
    flags = []
    for entry in architectures.split(";"):
        number = entry.removesuffix("+PTX").replace(".", "")
        codes = [f"sm_{number}", *([f"compute_{number}"] if entry.endswith("+PTX") else [])]
        flags += [f"-gencode=arch=compute_{number},code={code}" for code in codes]
    return flags
