"""What an epoch costs on 1, 2, ... processes, and what the sum of the totals costs: for docs/many_processes.md.

    python benchmarks/bench_processes.py [--records 400000] [--targets 100000] [--per-record 60] [--epochs 10]
        [--processes 1 2] [--rounds 5]

Each process has one thread and an equal part of a random problem with all gates open. One line for each number of
processes: an epoch in seconds of the clock and of process 0's CPU (median over rounds; on a busy machine only the
second means anything), nonzeros a CPU second; and the clock's seconds of the sum alone, of targets + 3 doubles. gloo,
through the loopback interface.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from l0fast.calibration import PackedMatrix, SparseCalibrationWeights
from l0fast.calibration.sharding.bounds import equal_shard


def random_columns(n_records: int, n_targets: int, per_record: int, seed: int) -> PackedMatrix:
    """Columns of per_record ones in distinct random rows: one in each of per_record equal ranges of targets."""
    rng = np.random.default_rng(seed)
    width = n_targets // per_record
    rows = rng.integers(0, width, (n_records, per_record), dtype=np.int32)
    rows += width * np.arange(per_record, dtype=np.int32)
    narrow = n_targets <= 65536
    return PackedMatrix(
        torch.arange(n_records + 1) * per_record,
        torch.from_numpy(rows.reshape(-1).astype(np.uint16 if narrow else np.int32)),
        torch.ones(n_records * per_record),
        (n_targets, n_records),
    )


def work(options, rank: int, size: int, folder: str) -> None:
    """One process: fits, and times the sum alone. Process 0 prints its figures as JSON."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meet.{size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=300))
    shard = equal_shard(options.records, rank, size)
    matrix = random_columns(shard.size, options.targets, options.per_record, rank)
    y = np.full(options.targets, options.records * options.per_record / options.targets)
    model = SparseCalibrationWeights(shard.size, init_keep_prob=0.999, seed=0, shard=shard)
    fit = {"loss_type": "relative", "lambda_l0": 1e-9, "process_group": dist.group.WORLD}
    model.fit(matrix, y, epochs=2, **fit)
    clock, cpu, sums, vector = [], [], [], torch.zeros(options.targets + 3, dtype=torch.float64)
    for _ in range(options.rounds):
        began = time.perf_counter(), time.process_time()
        model.fit(matrix, y, epochs=options.epochs, resume=True, **fit)
        middle = time.perf_counter(), time.process_time()
        model.fit(matrix, y, epochs=0, resume=True, **fit)  # the name of the matrix, and checks
        end = time.perf_counter(), time.process_time()
        for seconds, a, b, c in zip((clock, cpu), began, middle, end, strict=True):
            seconds.append(((b - a) - (c - b)) / options.epochs)
        dist.barrier()
        began = time.perf_counter()
        for _ in range(20):
            dist.all_reduce(vector)
        sums.append((time.perf_counter() - began) / 20)
    if rank == 0:
        print(json.dumps({name: statistics.median(x) for name, x in (("clock", clock), ("cpu", cpu), ("sum", sums))}))
    dist.destroy_process_group()


def measure(options, size: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--folder", folder, "--size", str(size), "--rank"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        ranks = [
            subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.PIPE if rank == 0 else None)
            for rank in range(size)
        ]
        said, _ = ranks[0].communicate()
        if any(rank.wait() for rank in ranks):
            raise SystemExit(f"a process of {size} failed")
        return json.loads(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("records", 400_000), ("targets", 100_000), ("per-record", 60), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        return work(options, options.rank, options.size, options.folder)
    nnz = options.records * options.per_record
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{options.records:,} records, {options.targets:,} targets, {nnz:,} nonzeros; load average {load:.1f}")
    for size in options.processes:
        found = measure(options, size)
        sums = f"the sum alone {found['sum'] * 1e3:.2f} ms"
        rate = nnz / size / found["cpu"] / 1e6
        print(
            f"{size} process{'es' if size > 1 else ''}: an epoch {found['clock'] * 1e3:.1f} ms, CPU "
            f"{found['cpu'] * 1e3:.1f} ms, {rate:.0f} million nonzeros a CPU second; {sums}",
            flush=True,
        )


if __name__ == "__main__":
    main()
