"""``l0fast info``: what runs here, for a user and for a bug report."""

import argparse
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy
import scipy
import torch

from .. import __version__, _load
from .output import say


def versions() -> dict[str, str]:
    """Versions and the kernels in use, as they go into the JSON and the report of a run."""
    error = _load.native_error()
    return {
        "l0fast": __version__,
        "kernels": f"compiled, {_load.instruction_set()}" if error is None else f"fallback in plain torch: {error}",
        "CUDA kernels": _cuda_kernels(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "platform": platform.platform(),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} processors",
    }


def info(options: argparse.Namespace) -> int:
    """Prints everything that decides what runs and how fast."""
    lines = versions()
    lines["array module"] = "compiled" if _load.host() is not None else "missing, numpy and scipy do its work"
    lines["CUDA"] = _cuda_devices()
    for package, extra in {"matplotlib": "report", "pandas": "data", "pyarrow": "data"}.items():
        lines[package] = _optional(package, extra)
    if _load.native_error() is not None:
        lines["to build"] = _load.BUILD_HINT
    elif torch.version.cuda is not None and _load.cuda_error() is not None:
        lines["to build"] = _load.CUDA_BUILD_HINT
    width = max(map(len, lines))
    for key, value in lines.items():
        say(f"{key:<{width}}  {value}")
    return 0


def _cuda_kernels() -> str:
    """Whether the library with the CUDA kernels is loaded, and for which GPUs it has machine code."""
    path = _load.library("_C_cuda")
    built = f"{path.name} for {', '.join(_architectures(path)) or 'unknown GPUs'}" if path else "not built"
    error = _load.cuda_error()
    return f"compiled, {built}" if error is None else f"not loaded: {error}; library {built}"


def _architectures(path: Path) -> list[str]:
    """From the assembler's options, which nvcc writes into the library in front of each piece of machine code."""
    found = {match.decode() for match in re.findall(rb"-arch (sm_\d{2,3}[a-z]?) ", path.read_bytes())}
    return sorted(found, key=lambda name: (len(name), name))


def _cuda_devices() -> str:
    """Never fails: a bug report must not need a machine without bugs."""
    if torch.version.cuda is None:
        return f"none: torch {torch.__version__} is a CPU build"
    if not torch.cuda.is_available():
        return f"none: torch has CUDA {torch.version.cuda} but sees no GPU"
    names = [f"cuda:{k} {_device(k)}" for k in range(torch.cuda.device_count())]
    return f"CUDA {torch.version.cuda}: {'; '.join(names)}"


def _device(index: int) -> str:
    try:
        properties = torch.cuda.get_device_properties(index)
    except RuntimeError as error:
        return f"unusable: {str(error).splitlines()[0]}"
    size = properties.total_memory / 1e9
    return f"{properties.name} (sm_{properties.major}{properties.minor}, {size:.1f} GB)"


def _optional(package: str, extra: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"not installed (pip install 'l0fast[{extra}]')"
