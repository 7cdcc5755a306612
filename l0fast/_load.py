"""Finds the compiled libraries and remembers why one is missing.

Nothing is printed at import. The first call that would have used a kernel warns once, says why it cannot and how to
build; from then on l0fast/reference does the work. ``L0FAST_FALLBACK=1`` forces that path, without the warning.
"""

import functools
import importlib
import os
import warnings
from pathlib import Path
from types import ModuleType

import torch

_HERE = Path(__file__).parent
BUILD_HINT = "build it with `python -m pip install --no-build-isolation -e .` in a clone of l0fast"
CUDA_BUILD_HINT = (
    "build it with `L0FAST_CUDA=1 python -m pip install --no-build-isolation -e .` in a clone of l0fast, under a CUDA "
    "build of torch and with nvcc at hand"
)


def forced_fallback() -> bool:
    return os.environ.get("L0FAST_FALLBACK", "0") not in ("", "0")


def library(stem: str) -> Path | None:
    """The file of ``_C`` or ``_C_cuda``, or None where it was not built."""
    found = sorted(_HERE.glob(f"{stem}.*so")) + sorted(_HERE.glob(f"{stem}.*pyd"))
    return found[0] if found else None


def _loaded(stem: str) -> str | None:
    path = library(stem)
    if path is None:
        return f"no compiled library {stem} in {_HERE}"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{path.name} does not load under torch {torch.__version__}: {str(error).splitlines()[0]}"
    return None


def _load_native() -> str | None:
    return "L0FAST_FALLBACK is set" if forced_fallback() else _loaded("_C")


def _load_cuda(native_error: str | None) -> str | None:
    """After ``_C``, which declares the ops. A CPU build of torch lacks what the library needs, so it is not tried."""
    if native_error is not None:
        return native_error
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    return _loaded("_C_cuda")


# Decided at import, in plain variables: torch.compile can read them, and it cannot trace the loading.
_NATIVE_ERROR = _load_native()
_CUDA_ERROR = _load_cuda(_NATIVE_ERROR)


def native_error() -> str | None:
    """None if the ops of ``_C`` are loaded, else one line that says why they are not."""
    return _NATIVE_ERROR


def cuda_error() -> str | None:
    """None if the CUDA kernels of ``_C_cuda`` are loaded (with a GPU or without), else one line that says why not."""
    return _CUDA_ERROR


@functools.cache
def host() -> ModuleType | None:
    """The pybind11 module for NumPy arrays, or None where it is missing or the fallback is forced."""
    if forced_fallback():
        return None
    try:
        return importlib.import_module("l0fast._host")
    except ImportError:
        return None


def native_for(tensor: torch.Tensor) -> bool:
    """Whether the kernels handle this tensor; warns, once for each reason, where one would expect them to do."""
    kind = tensor.device.type
    if _NATIVE_ERROR is None and (kind == "cpu" or (kind == "cuda" and _CUDA_ERROR is None)):
        return True
    if not forced_fallback():
        if kind == "cuda" and _NATIVE_ERROR is None:
            warn_fallback(_CUDA_ERROR, CUDA_BUILD_HINT)
        else:
            warn_fallback(_NATIVE_ERROR or f"this build has no kernels for {kind} tensors", BUILD_HINT)
    return False


@functools.cache
def warn_fallback(reason: str, hint: str) -> None:
    warnings.warn(f"l0fast runs in plain torch, slower: {reason}; {hint}", RuntimeWarning, stacklevel=4)


def instruction_set() -> str:
    if _NATIVE_ERROR is not None:
        return "none (fallback)"
    level = torch.ops.l0fast.instruction_set()
    return {4: "x86-64-v4 (AVX-512)", 3: "x86-64-v3 (AVX2)"}.get(level, "baseline")
