"""Time of a calibration epoch: l0-python, an expert's torch and l0fast in one run, compared before they are timed.

    python benchmarks/bench_calibration.py                         # all problems, all gates open and 90 % closed
    python benchmarks/bench_calibration.py --problem cps40k --quick
    python benchmarks/bench_calibration.py --cps cps_280k.npz      # or .parquet; else fetched from PyPI once
    python benchmarks/bench_calibration.py --end-to-end [--with-peer]

The contenders take turns, one sample each, so that a busy moment of the machine meets all of them. A sample is a
``fit`` of as many epochs as take about half a second, less the time of a ``fit`` of none. The step is 1e-12: nothing
moves, the gates stay as open as the state says. Settings: beta 0.35, lambda_l0 1e-4, lambda_l2 1e-12, relative loss.

The bounds: the bytes that an epoch has to move at the least (problems.EpochBytes), at the read bandwidth that torch
reaches here, over the epoch's time. A small problem lives in the processor's caches and can exceed 100 %.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import end_to_end
import peak_memory
import torch
from agreement import DisagreementError, check
from common import CACHE, RESULTS, Summary, append_row, read_bandwidth, run_facts, significant, timed
from contenders import L0Fast, available
from problems import PROBLEMS, STATES, EpochBytes, Problem, log_alpha_of, make_problem

from l0fast import _load


@dataclass(frozen=True)
class Pace:
    """How long to measure: seconds of a sample, seconds of a state's rounds together, and rounds if given."""

    sample: float = 0.5
    state: float = 25.0
    rounds: int | None = None

    def rounds_of(self, round_seconds: float) -> int:
        if self.rounds is not None:
            return self.rounds
        return min(15, max(3, int(self.state / round_seconds)))


@dataclass
class Clock:
    """Samples of one contender in one state, in milliseconds per epoch."""

    contender: object
    sample_seconds: float
    per_sample: int = 1
    setup: float = 0.0
    samples: list[float] = field(default_factory=list)

    def __post_init__(self):
        # The least, not the median: what is subtracted must never be more than the set-up took.
        self.setup = min(timed(lambda: self.contender.fit(0)) for _ in range(3))
        guess = self._epoch_seconds(1)
        if guess < self.sample_seconds / 4:  # one epoch is too short to tell
            guess = self._epoch_seconds(8)
        self.per_sample = max(1, round(self.sample_seconds / guess))

    def _epoch_seconds(self, epochs: int) -> float:
        return max(timed(lambda: self.contender.fit(epochs)) - self.setup, 1e-7) / epochs

    def sample(self) -> float:
        """Takes one; returns the seconds that it took, set-up included."""
        seconds = timed(lambda: self.contender.fit(self.per_sample))
        self.samples.append(max(seconds - self.setup, 1e-9) / self.per_sample * 1e3)
        return seconds

    @property
    def epochs(self) -> int:
        return self.per_sample * len(self.samples)


def measure(contenders: list, pace: Pace) -> list[Clock]:
    """Takes samples in turns: one of each contender, then the next round."""
    clocks = [Clock(contender, pace.sample) for contender in contenders]
    round_seconds = sum(clock.sample() for clock in clocks)
    for _ in range(pace.rounds_of(round_seconds) - 1):
        for clock in clocks:
            clock.sample()
    return clocks


def rows_of(clocks: list[Clock], bandwidth: float, memory: dict) -> list[dict]:
    """What is reported of one problem in one state, a row for each contender."""
    ours = next(clock for clock in clocks if isinstance(clock.contender, L0Fast))
    packed = ours.contender.packed
    arrays = (packed.rows.nbytes, packed.values.nbytes, packed.indptr.nbytes)
    needed = EpochBytes.of(*arrays, packed.n_records, ours.contender.open_share())
    base = statistics.median(ours.samples)
    rows = []
    for clock in clocks:
        time = Summary.of(clock.samples)
        shares = (count / (bandwidth * 1e9) / (time.median / 1e3) for count in (needed.two_pass, needed.engine))
        two_pass, engine = shares
        row = {
            "contender": clock.contender.name,
            "epochs": clock.epochs,
            "median_ms": significant(time.median),
            "p20_ms": significant(time.p20),
            "p80_ms": significant(time.p80),
            "ratio_to_l0fast": significant(time.median / base),
            "extra_peak_rss_mb": significant(memory.get(clock.contender.name)),
            "bandwidth_gb_s": significant(bandwidth),
            "bytes_two_pass": needed.two_pass,
            "bytes_engine": needed.engine,
            "share_two_pass": significant(two_pass),
            "share_engine": significant(engine),
        }
        rows.append(row)
    return rows


def peak_memories(problem: Problem, contenders: list) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        problem.save(path)
        return {c.name: peak_memory.measure(c.name, path, getattr(c, "plan", {})) for c in contenders}


def print_rows(state: str, rows: list[dict]) -> None:
    meaning = {"open": "all gates open", "closed90": "90 % of the gates closed"}[state]
    print(f"  {meaning}; at the least {rows[0]['bytes_two_pass'] / 1e6:.1f} MB an epoch in two passes,", end=" ")
    print(f"{rows[0]['bytes_engine'] / 1e6:.1f} MB with the matrix read once")
    heads = ("ms/epoch", "p20", "p80", "x l0fast", "peak MB", "two-pass", "engine")
    print(f"    {'':13}" + "".join(f"{head:>10}" for head in heads))
    for row in rows:
        numbers = [row[name] for name in ("median_ms", "p20_ms", "p80_ms")]
        numbers.append(f"{float(row['ratio_to_l0fast']):.1f}")
        numbers.append(f"{float(row['extra_peak_rss_mb']):.0f}" if row["extra_peak_rss_mb"] else "-")
        numbers += [f"{100 * float(row[name]):.1f} %" for name in ("share_two_pass", "share_engine")]
        print(f"    {row['contender']:13}" + "".join(f"{number:>10}" for number in numbers), flush=True)


def bench_problem(problem: Problem, pace: Pace, out: Path, facts: dict, with_memory: bool, bandwidth: float) -> float:
    """Compares, measures and reports one problem in each state. Rows are written as soon as they are known.

    Takes and returns the best read bandwidth so far: a busy moment must not make the limit look near.
    """
    print(f"\n{problem}")
    log_weight = torch.log(torch.tensor(problem.w0, dtype=torch.float32) + 1e-8)
    contenders = {state: [contender(problem) for contender in available()] for state in STATES}
    for contender in contenders["open"]:
        if hasattr(contender, "plan"):
            print(f"  {contender.name}, fastest here: {contender.plan}")
    memory = peak_memories(problem, contenders["open"]) if with_memory else {}
    for state in STATES:
        errors = check(problem, contenders[state], log_weight, log_alpha_of(state, problem.n_records))
        print(f"  {state}: results agree; largest relative errors:", end=" ")
        print(", ".join(f"{name} {max(e.values()):.0e}" for name, e in errors.items()), flush=True)
    bandwidth = max(bandwidth, read_bandwidth())
    print(f"  read bandwidth {bandwidth:.1f} GB/s with {torch.get_num_threads()} threads", flush=True)
    clocks = measure([c for state in STATES for c in contenders[state]], pace)
    for state in STATES:
        rows = rows_of([clock for clock in clocks if clock.contender in contenders[state]], bandwidth, memory)
        print_rows(state, rows)
        for row in rows:
            append_row(out, {**facts, "problem": problem.name, "state": state, **row})
    print_closed_share(clocks)
    return bandwidth


def print_closed_share(clocks: list[Clock]) -> None:
    """What an epoch costs with 90 % of the gates closed, as a share of the one with all open, round by round."""
    opened, closed = (clock.samples for clock in clocks if isinstance(clock.contender, L0Fast))
    ratios = [b / a for a, b in zip(opened, closed, strict=True)]
    print(f"  l0fast: a closed epoch costs {statistics.median(ratios):.0%} of an open one", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="cps40k,cps280k,synthetic", help=f"some of {', '.join(PROBLEMS)}")
    parser.add_argument("--cps", type=Path, metavar="FILE", help="the full CPS problem, .npz or .parquet")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"folder for it if not given (default {CACHE})")
    parser.add_argument("--quick", action="store_true", help="short samples, three rounds, no memory")
    parser.add_argument("--rounds", type=int, help="samples of each contender (default: 3 to 15, by time)")
    parser.add_argument("--out", type=Path, help=f"CSV to append to (default: in {RESULTS.name}/)")
    parser.add_argument("--end-to-end", action="store_true", help="whole fits of the 40k problem instead")
    parser.add_argument("--with-peer", action="store_true", help="with --end-to-end: l0-python too, minutes")
    options = parser.parse_args(arguments)
    options.problem = options.problem.split(",")
    if unknown := set(options.problem) - set(PROBLEMS):
        parser.error(f"--problem: expected some of {', '.join(PROBLEMS)}, got {', '.join(sorted(unknown))}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {options.rounds}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    facts = run_facts()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if (why := _load.native_error()) is not None:
        print(f"expected the compiled kernels, but {why}; {_load.BUILD_HINT}", file=sys.stderr)
        return 1
    print(f"kernels: {_load.instruction_set()}")
    if options.end_to_end:
        end_to_end.main(options.out or RESULTS / "end_to_end.csv", facts, options.with_peer)
        return 0
    if len(available()) < 3:
        print("l0-python not installed: measured without it (python -m pip install l0-python==0.6.2)")
    pace = Pace(0.03, 0.0, options.rounds or 3) if options.quick else Pace(rounds=options.rounds)
    out = options.out or RESULTS / "calibration.csv"
    bandwidth = read_bandwidth()
    for name in options.problem:
        try:
            problem = make_problem(name, options.cps, options.cache)
        except OSError as error:
            print(f"\n{name}: left out, {error}", file=sys.stderr)
            continue
        try:
            bandwidth = bench_problem(problem, pace, out, facts, not options.quick, bandwidth)
        except DisagreementError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
