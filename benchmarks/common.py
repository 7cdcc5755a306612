"""What every benchmark shares: the facts of the machine, its read bandwidth, statistics of samples, the CSV."""

import csv
import datetime
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone measures itself, installed or not

import l0fast

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "l0fast"
"""Where what a benchmark fetches or builds is kept."""


def processor() -> str:
    """Model and cores, such as 'AMD EPYC, 2 cores'."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {usable} cores"


def commit() -> str:
    """The commit that is measured, with '+' if tracked files differ from it, or 'unknown' outside a clone."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run_facts() -> dict[str, str]:
    """The columns with which every row of a CSV begins: when, where and what was measured."""
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": processor(),
        "torch": torch.__version__,
        "l0fast": l0fast.__version__,
        "commit": commit(),
    }


def read_bandwidth(megabytes: int = 512, repeats: int = 7) -> float:
    """GB/s at which torch's threads read memory: the fastest sum over a tensor that no cache holds.

    Floats and integers are both tried, because one of the two may be bound by arithmetic instead.
    """
    best = 0.0
    for dtype in (torch.float32, torch.int64):
        tensor = torch.ones(megabytes * 1_000_000 // dtype.itemsize, dtype=dtype)
        tensor.sum()
        seconds = min(timed(tensor.sum) for _ in range(repeats))
        best = max(best, tensor.nbytes / seconds / 1e9)
    return best


def timed(work) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Summary:
    """Median and the range that holds the middle three fifths of the samples."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, samples: list[float]) -> "Summary":
        p20, median, p80 = np.percentile(samples, [20, 50, 80])
        return cls(float(median), float(p20), float(p80))


def append_row(path: Path, row: dict) -> None:
    """Adds one row to a CSV and begins it with a header where there is none.

    Raises:
        ValueError: the file has other columns; its rows must not be mixed with these.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists() or path.stat().st_size == 0
    if not fresh:
        with path.open(newline="") as file:
            columns = next(csv.reader(file))
        if columns != list(row):
            raise ValueError(f"{path}: has the columns {columns}, expected {list(row)}; move it away first")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def significant(x: float | None, digits: int = 4) -> str:
    """x with so many significant digits and no exponent, or '' for None."""
    if x is None:
        return ""
    if x == 0:
        return "0"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(x)))))
    return f"{x:.{decimals}f}"
