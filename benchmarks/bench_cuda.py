"""Everything that issue 4 wants measured on a GPU, in one run of under eight minutes.

    python benchmarks/bench_cuda.py                                 # builds if need be, checks, times, prints a table
    python benchmarks/bench_cuda.py --cps cps_280k.npz              # the full CPS problem (or .parquet); else fetched
    python benchmarks/bench_cuda.py --only elementwise,layers
    python benchmarks/bench_cuda.py --device cpu --quick            # the same script at toy sizes, without a GPU

Each op is compared with l0fast/reference in float64 before it is timed. A failed check ends the run: exit code 1,
and its message says what is wrong. Without a CUDA device the exit code is 2. Rows go to --out, and to $OUT if that is
set. On a machine without a network l0-python and the CPS problem have to be brought along; else they are left out.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent

SECTIONS = {"agreement": 35, "elementwise": 90, "layers": 60, "cps280k": 45, "33k x 338k": 45, "13k x 5.2m": 110}
"""Weights: how the time left after the build is shared."""


def build(device: str) -> None:
    """Compiles in place what is missing for the device.

    Raises:
        SystemExit: the build fails.
    """
    wanted = ["_C.*so", "_host*so", *(["_C_cuda*so"] if device.startswith("cuda") else [])]
    missing = [pattern for pattern in wanted if not list((ROOT / "l0fast").glob(pattern))]
    if not missing:
        return
    print(f"building: {', '.join(missing)} not in l0fast/", flush=True)
    began = time.monotonic()
    environment = {**os.environ, "L0FAST_CUDA": "1" if device.startswith("cuda") else "0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise SystemExit(f"check failed: {' '.join(command)} with L0FAST_CUDA={environment['L0FAST_CUDA']}")
    print(f"built in {time.monotonic() - began:.0f} s", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cuda, cuda:1, ... or cpu (with --quick)")
    parser.add_argument("--quick", action="store_true", help="toy sizes: does it run")
    parser.add_argument("--minutes", type=float, default=7.5, help="for everything together (default 7.5)")
    parser.add_argument("--only", help=f"some of {', '.join(SECTIONS)}, with commas between them")
    parser.add_argument("--no-compile", action="store_true", help="without l0-python under torch.compile")
    parser.add_argument("--cps", type=Path, metavar="FILE", help="the full CPS problem, .npz or .parquet")
    parser.add_argument("--cache", type=Path, help="folder for it if not given (default as in bench_calibration.py)")
    parser.add_argument("--out", type=Path, help="CSV to append to (default benchmarks/results/cuda.csv)")
    parser.add_argument("--commit", help="what is measured, where there is no .git to ask")
    options = parser.parse_args(arguments)
    options.sections = options.only.split(",") if options.only else list(SECTIONS)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"--only: expected some of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}")
    if options.device.split(":")[0] not in ("cuda", "cpu"):
        parser.error(f"--device: expected cuda, cuda:N or cpu, got {options.device}")
    if options.device == "cpu" and not options.quick:
        parser.error("--device: expected --quick with cpu: the full sizes are a GPU's")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    began = time.monotonic()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here (torch.cuda.is_available() is False); try --device cpu --quick", file=sys.stderr)
        return 2
    build(options.device)
    from cuda_run import run  # after the build: l0fast looks for its libraries when it is imported

    return run(options, options.minutes * 60 - (time.monotonic() - began), SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
