"""Time of gated layers and gate ops: a dense layer, l0-python, the same compiled, and l0fast, compared before timing.

    python benchmarks/bench_layers.py                              # all cases: training steps, forward, evaluation
    python benchmarks/bench_layers.py --optimizer adam             # training steps of layers with a fused Adam
    python benchmarks/bench_layers.py --only linear4096,conv       # cases whose key begins so
    python benchmarks/bench_layers.py --quick --out /tmp/x.csv     # tiny sizes: does it run

Modes: ``step`` is a training step: gradients to None, forward, penalty, backward from given gradients of the output and
1e-3 for the penalty; fresh noise is part of it. ``step+adam`` adds torch.optim.Adam(fused=True) on all parameters.
``forward`` is the output in training mode under no_grad, ``eval`` the same in evaluation. Of gate ops, ``forward`` and
``step`` (forward and backward) are reported in nanoseconds a gate; ``copy`` is a tensor copied to another, for scale.

The contenders take turns, one step each a round, and each round begins with another one. Two rounds are dropped. Ratios
are medians of the rounds' ratios: of a contender's time to the dense layer's, and to l0-python's, eager and compiled.
``bytes_kept``: what a forward pass leaves for backward besides parameters and input, each storage once.
"""

import argparse
import gc
import statistics
import sys
import time
from pathlib import Path

import torch
from agreement import DisagreementError
from common import RESULTS, Summary, append_row, run_facts, significant, timed
from layer_agreement import check
from layer_cases import COMPILED, COMPOSED, OURS, PEER, Case, all_cases
from layer_contenders import Contender, contenders_of, installed

from l0fast import _load

DROPPED = 2
"""Rounds before the first that counts: memory is new to the process, caches are someone else's."""

LEAST, MOST, SECONDS = 15, 200, 4.0
"""Rounds of one mode of a case at least and at most, and how long they should take together."""

GATED = (PEER, COMPILED, OURS, COMPOSED)


def measure(contenders: list[Contender], rounds: int | None) -> list[list[float]]:
    """Seconds of each contender in each round."""
    samples: list[list[float]] = [[] for _ in contenders]

    def take_turns(first: int) -> float:
        began = time.perf_counter()
        for k in range(len(contenders)):
            place = (first + k) % len(contenders)
            samples[place].append(timed(contenders[place].run))
        return time.perf_counter() - began

    round_seconds = [take_turns(number) for number in range(DROPPED)][-1]
    for times in samples:
        times.clear()
    for number in range(rounds or min(MOST, max(LEAST, int(SECONDS / round_seconds)))):
        take_turns(number)
    return samples


def rows_of(case: Case, contenders: list[Contender], samples: list[list[float]], label: str) -> list[dict]:
    """What is reported of one mode of a case, a row for each contender."""
    by_name = {contender.name: times for contender, times in zip(contenders, samples, strict=True)}

    def ratio(times: list[float], base: str) -> str:
        if base not in by_name:
            return ""
        return significant(statistics.median(a / b for a, b in zip(times, by_name[base], strict=True)))

    rows = []
    for contender, times in zip(contenders, samples, strict=True):
        summary = Summary.of([case.reported(seconds) for seconds in times])
        row = {
            "threads": torch.get_num_threads(),
            "case": case.key,
            "mode": label,
            "contender": contender.name,
            "rounds": len(times),
            "unit": case.unit,
            "median": significant(summary.median),
            "p20": significant(summary.p20),
            "p80": significant(summary.p80),
            "ratio_dense": ratio(times, "dense"),
            "ratio_eager": ratio(times, PEER),
            "ratio_compiled": ratio(times, COMPILED),
            "bytes_kept": contender.bytes_kept() if contender.mode == "step" else "",
        }
        rows.append(row)
    return rows


def print_table(rows: list[dict]) -> None:
    """The rows as a Markdown table."""
    heads = ("contender", rows[0]["unit"], "p20", "p80", "/ dense", "/ l0-python", "/ compiled", "kept")
    print(f"\n| {' | '.join(heads)} |\n|---{'|--:' * (len(heads) - 1)}|")
    for row in rows:
        times = [row[name] for name in ("contender", "median", "p20", "p80")]
        ratios = [f"{float(row[name]):.3g}" if row[name] else "" for name in RATIOS]
        kept = f"{row['bytes_kept'] / 1e6:.3g} MB" if row["bytes_kept"] != "" else ""
        print(f"| {' | '.join([*times, *ratios, kept])} |")
    print(flush=True)


RATIOS = ("ratio_dense", "ratio_eager", "ratio_compiled")


def bench_mode(case: Case, mode: str, options: argparse.Namespace, facts: dict) -> None:
    """Compares, measures and reports one mode of a case."""
    label = "step+adam" if options.optimizer == "adam" else mode
    print(f"### {case.title}: {label}\n", flush=True)
    torch.manual_seed(0)
    contenders, left_out = contenders_of(case, mode, options.contenders, options.optimizer == "adam")
    for name, why in left_out.items():
        print(f"{name}: left out, {why}")
    report = check(case, mode, contenders)
    samples = measure(contenders, options.rounds)
    rows = rows_of(case, contenders, samples, label)
    print(f"{report}; {rows[0]['rounds']} rounds")
    print_table(rows)
    for row in rows:
        append_row(options.out, {**facts, **row})


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="keys of cases, or how they begin, with commas between them")
    parser.add_argument("--rounds", type=int, help=f"of each mode (default: {LEAST} to {MOST}, by time)")
    parser.add_argument("--optimizer", choices=["none", "adam"], default="none", help="part of the training step")
    parser.add_argument("--contenders", help=f"some of {', '.join(GATED)} (default: the first three)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one thread, three rounds, nothing compiled")
    parser.add_argument("--out", type=Path, default=RESULTS / "layers.csv", help="CSV to append to")
    options = parser.parse_args(arguments)
    default = (PEER, OURS) if options.quick else (PEER, COMPILED, OURS)
    options.contenders = options.contenders.split(",") if options.contenders else list(default)
    if unknown := set(options.contenders) - set(GATED):
        parser.error(f"--contenders: expected some of {', '.join(GATED)}, got {', '.join(sorted(unknown))}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {options.rounds}")
    if options.quick and options.rounds is None:
        options.rounds = 3
    cases = all_cases(options.quick)
    wanted = options.only.split(",") if options.only else [""]
    for prefix in wanted:
        if not any(case.key.startswith(prefix) for case in cases):
            parser.error(f"--only: expected some of {', '.join(case.key for case in cases)}, got {prefix}")
    options.cases = [case for case in cases if case.key.startswith(tuple(wanted))]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.quick:
        torch.set_num_threads(1)  # a second one would cost more than it brings, most of all on a busy machine
    facts = run_facts()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), f"threads {torch.get_num_threads()}", sep=", ")
    if (why := _load.native_error()) is not None:
        print(f"expected the compiled kernels, but {why}; {_load.BUILD_HINT}", file=sys.stderr)
        return 1
    print(f"kernels: {_load.instruction_set()}\n")
    if not installed():
        print("l0-python not installed: measured without it (python -m pip install l0-python==0.6.2)\n")
        options.contenders = [name for name in options.contenders if name not in (PEER, COMPILED)]
    for case in options.cases:
        modes = case.modes if options.optimizer == "none" else ("step",) if case.per_gate is None else ()
        for mode in modes:
            try:
                bench_mode(case, mode, options, facts)
            except DisagreementError as error:
                print(error, file=sys.stderr)
                return 1
            gc.collect()  # the modules of this mode, before the next one's are made
    return 0


if __name__ == "__main__":
    sys.exit(main())
