"""Finds the compiled libraries and remembers why one is missing.

Nothing is printed at import. The first call that would have used a kernel warns once, says why it cannot and how to
build; from then on l0fast/reference.py does the work. ``L0FAST_FALLBACK=1`` forces that path, without the warning.
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


def forced_fallback() -> bool:
    return os.environ.get("L0FAST_FALLBACK", "0") not in ("", "0")


def _load_native() -> str | None:
    if forced_fallback():
        return "L0FAST_FALLBACK is set"
    found = sorted(_HERE.glob("_C.*so")) + sorted(_HERE.glob("_C.*pyd"))
    if not found:
        return f"no compiled library _C in {_HERE}"
    try:
        torch.ops.load_library(str(found[0]))
    except OSError as error:
        return f"{found[0].name} does not load under torch {torch.__version__}: {str(error).splitlines()[0]}"
    return None


# Decided at import, in a plain variable: torch.compile can read it, and it cannot trace the loading.
_NATIVE_ERROR = _load_native()


def native_error() -> str | None:
    """None if the ops of ``_C`` are loaded, else one line that says why they are not."""
    return _NATIVE_ERROR


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
    """Whether the kernels handle this tensor; warns once where one would expect them to and they do not."""
    if _NATIVE_ERROR is None and tensor.device.type == "cpu":
        return True
    if not forced_fallback():
        warn_fallback(_NATIVE_ERROR or f"this build has no kernels for {tensor.device.type} tensors")
    return False


@functools.cache
def warn_fallback(reason: str) -> None:
    warnings.warn(f"l0fast runs in plain torch, slower: {reason}; {BUILD_HINT}", RuntimeWarning, stacklevel=4)


def instruction_set() -> str:
    if _NATIVE_ERROR is not None:
        return "none (fallback)"
    level = torch.ops.l0fast.instruction_set()
    return {4: "x86-64-v4 (AVX-512)", 3: "x86-64-v3 (AVX2)"}.get(level, "baseline")
