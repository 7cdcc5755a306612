"""Packing a calibration matrix: time, size and peak memory, beside scipy's own ``.tocsc()``.

    python benchmarks/bench_packing.py --synthetic            32,633 x 337,704, 60 nonzeros a record
    python benchmarks/bench_packing.py --cps cps_280k.npz     from a CSR archive: data, indices, indptr, shape

Times are medians over interleaved repetitions. Peak memory is measured in a fresh process for each contender: VmHWM
after a reset through /proc/self/clear_refs, less VmRSS before, over the packed size (without /proc: growth of
ru_maxrss, a lower bound).
"""

import argparse
import ctypes
import gc
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import scipy.sparse as sp
import torch

from l0fast import _load
from l0fast.calibration.matrix import pack
from l0fast.calibration.matrix_source import source_of

N_TARGETS, N_RECORDS, PER_RECORD = 32_633, 337_704, 60


def load(path: str | None) -> sp.csr_matrix:
    if path is None:
        rng = np.random.default_rng(0)
        rows = rng.integers(0, N_TARGETS, N_RECORDS * PER_RECORD, dtype=np.int32)
        indptr = np.arange(0, rows.size + 1, PER_RECORD)
        M = sp.csc_matrix((rng.random(rows.size, dtype=np.float32) + 0.5, rows, indptr), (N_TARGETS, N_RECORDS)).tocsr()
        M.sum_duplicates()
        return M
    with np.load(path, allow_pickle=False) as archive:
        parts = tuple(archive[name] for name in ("data", "indices", "indptr"))
        return sp.csr_matrix(parts, shape=tuple(archive["shape"]))


CONTENDERS = {
    "pack csr -> float32": lambda M: pack(M),
    "pack csr -> float64": lambda M: pack(M, torch.float64),
    "pack csr, 1 thread": lambda M: pack(M, threads=1),
    "scipy tocsc": lambda M: M.tocsc(),
}


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def peak_of(contender: str, path: str | None) -> dict:
    """In the child: bytes that the call needed above what was there before it."""
    M, run = load(path), CONTENDERS[contender]
    run(sp.random(50, 50, density=0.1, format="csr", dtype=np.float32))  # imports and pools are not the packer's
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory kept from loading would hide what the call needs
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        result = run(M)
        peak, how = status("VmHWM") - before, "VmHWM after clear_refs"
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = run(M)
        peak, how = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, "ru_maxrss growth"
    del result
    return {"peak": peak, "how": how}


def in_fresh_process(contender: str, path: str | None) -> dict:
    command = [sys.executable, __file__, "--peak-of", contender, *(["--cps", path] if path else ["--synthetic"])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def times(jobs: dict, repeats: int) -> dict[str, float]:
    taken = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            taken[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in taken.items()}


def check_agreement(M: sp.csr_matrix) -> None:
    ours, theirs = pack(M), M.tocsc()
    same = np.array_equal(ours.indptr.numpy(), theirs.indptr) and np.array_equal(ours.rows.numpy(), theirs.indices)
    assert same and np.array_equal(ours.values.numpy(), theirs.data), "pack and scipy disagree"


def report(path: str | None, repeats: int) -> None:
    M = load(path)
    check_agreement(M)
    packed = pack(M)
    by_columns, coordinates = M.tocsc(), M.tocoo()
    jobs = {name: lambda run=run: run(M) for name, run in CONTENDERS.items()}
    jobs |= {"pack csc": lambda: pack(by_columns), "pack coo": lambda: pack(coordinates)}
    threads, source = torch.get_num_threads(), source_of(M)
    jobs["content key (cache hit)"] = lambda: source.content_key(threads)
    seconds = times(jobs, repeats)
    print(
        f"{packed}\n{packed.bytes_per_nonzero:.2f} bytes a nonzero, {threads} threads, host: {_load.host() is not None}"
    )
    how = ""
    for name, taken in seconds.items():
        line = f"  {name:26s} {taken * 1e3:8.1f} ms"
        if name in CONTENDERS:
            child = in_fresh_process(name, path)
            result = pack(M, torch.float64).nbytes if "float64" in name else packed.nbytes
            line += f"   peak {child['peak'] / 1e6:7.1f} MB = {child['peak'] / result:.2f} x packed"
            how = child["how"]
        print(line)
    size = sum(a.nbytes for a in (source.indptr, source.cols, source.values))
    print(f"  fingerprint: {size / seconds['content key (cache hit)'] / 1e9:.1f} GB/s; peak by {how}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cps", metavar="FILE.npz")
    which.add_argument("--synthetic", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak-of", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        print(json.dumps(peak_of(args.peak_of, args.cps)))
    else:
        report(args.cps, args.repeats)


if __name__ == "__main__":
    main()
