"""``l0fast info``: what runs here, for a user and for a bug report."""

import argparse
import os
import platform
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
    lines["CUDA"] = _cuda()
    for package, extra in {"matplotlib": "report", "pandas": "data", "pyarrow": "data"}.items():
        lines[package] = _optional(package, extra)
    if _load.native_error() is not None:
        lines["to build"] = _load.BUILD_HINT
    width = max(map(len, lines))
    for key, value in lines.items():
        say(f"{key:<{width}}  {value}")
    return 0


def _cuda() -> str:
    here = Path(_load.__file__).parent
    found = sorted([*here.glob("_C_cuda*.so"), *here.glob("_C_cuda*.pyd")])
    library = f"library {found[0].name}" if found else f"no library _C_cuda in {here}"
    if torch.version.cuda is None:
        return f"not used: torch {torch.__version__} is a CPU build; {library}"
    if not torch.cuda.is_available():
        return f"not used: torch has CUDA {torch.version.cuda} but sees no GPU; {library}"
    return f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}; {library}"


def _optional(package: str, extra: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"not installed (pip install 'l0fast[{extra}]')"
