"""Draws benchmarks/results/convergence.png and .svg from the CSV of bench_convergence.py: loss against wall time.

    python benchmarks/convergence_figure.py [--csv FILE] [--out FILE.png] [--clock cpu]

Of each problem the latest run is shown; of each contender the seed that gets there in the median time, or the first if
none does. On a machine that others use, CPU time of one thread says more than wall time.
"""

import argparse
import csv
import sys
from pathlib import Path

from bench_convergence import reached
from common import RESULTS
from convergence_runs import PEER
from figures import COLOURS, FAINT, INK, RULE, TITLES, plt, save
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

CLOCKS = {"wall": ("seconds", "seconds"), "cpu": ("cpu_seconds", "seconds of CPU time")}
"""Column of the CSV, and its name on the axis."""
SHOWN = {
    PEER: (COLOURS["l0-python"], "l0-python"),
    "l0fast": (COLOURS["l0fast"], "l0fast, the same arguments"),
    "l0fast, anneal": ("#2f9e77", 'l0fast, lr 0.3, schedule="anneal"'),
}
Runs = dict[str, dict[str, list[dict]]]


def latest(path: Path, clock: str) -> Runs:
    """Looks of the latest run of each problem, by contender, in the order of their epochs."""
    found: dict[str, dict[str, dict[str, list[dict]]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            run = found.setdefault(row["problem"], {})
            if any(looks[0]["date"] != row["date"] for seeds in run.values() for looks in seeds.values()):
                run.clear()  # a newer run: rows of two runs are never compared
            if row["contender"] in SHOWN and float(row[clock]) > 0:
                run.setdefault(row["contender"], {}).setdefault(row["seed"], []).append(row)
    complete = {problem: run for problem, run in found.items() if PEER in run}
    return {
        problem: {name: median_run(list(seeds.values()), run[PEER]["0"][-1], clock) for name, seeds in run.items()}
        for problem, run in complete.items()
    }


def arrival(looks: list[dict], goal: dict) -> dict | None:
    """The first look at the goal; of the peer its last one."""
    return goal if looks[-1] is goal else next((look for look in looks if reached(look, goal, False)), None)


def median_run(runs: list[list[dict]], goal: dict, clock: str) -> list[dict]:
    there = [(float(look[clock]), k) for k, looks in enumerate(runs) if (look := arrival(looks, goal)) is not None]
    return runs[sorted(there)[(len(there) - 1) // 2][1] if there else 0]


def seconds(x: float) -> str:
    if x >= 10:
        return f"{x:,.0f} s"
    return f"{x:.1f} s" if x >= 1 else f"{x:.2g} s"


def draw_panel(ax: Axes, problem: str, run: dict[str, list[dict]], clock: str) -> None:
    """Lines of the contenders, the peer's last loss, and when each got there."""
    goal = run[PEER][-1]
    target = float(goal["loss"])
    ax.axhline(target, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for name in (name for name in SHOWN if name in run):
        colour, looks = SHOWN[name][0], run[name]
        times, losses = ([float(look[key]) for look in looks] for key in (CLOCKS[clock][0], "loss"))
        ax.plot(times, losses, color=colour, linewidth=2, zorder=3, solid_capstyle="round")
        there = arrival(looks, goal)
        if there is None:
            continue
        time, loss = float(there[CLOCKS[clock][0]]), float(there["loss"])
        ax.plot(time, loss, "o", color=colour, markersize=7, markeredgecolor="white", zorder=4)
        ratio = "" if name == PEER else f"\n{float(goal[CLOCKS[clock][0]]) / time:,.0f}×"
        ax.annotate(
            *(seconds(time) + ratio, (time, loss)),
            **{"xytext": (0, -9), "textcoords": "offset points", "ha": "center", "va": "top"},
            **{"color": colour, "fontsize": 10, "fontweight": "bold", "linespacing": 1.25},
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.margins(x=0.06)
    everything = [float(look["loss"]) for looks in run.values() for look in looks]
    low, high = min(everything), max(everything)
    ax.set_ylim(low / (high / low) ** 0.3, high * 1.1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    ticks = [x * 10**k for k in range(-1, 7) for x in (1, 2, 5)]
    ax.set_yticks([x for x in ticks if ax.get_ylim()[0] <= x <= ax.get_ylim()[1]])
    ax.grid(color=RULE, linewidth=0.8, zorder=0)
    ax.tick_params(colors=FAINT, length=0, labelsize=9)
    ax.tick_params(which="minor", length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_xlabel(f"{CLOCKS[clock][1]}, from the call of fit", color=FAINT, fontsize=9)
    title, detail = TITLES.get(problem, (problem, ""))
    ax.text(0, 1.09, title, transform=ax.transAxes, color=INK, fontsize=12, fontweight="bold")
    ax.text(0, 1.03, detail, transform=ax.transAxes, color=FAINT, fontsize=9)


def draw(runs: Runs, clock: str) -> plt.Figure:
    """A panel for each problem.

    Raises:
        ValueError: the CSV has no complete run.
    """
    if not runs:
        raise ValueError(f"expected runs with rows of {PEER}, found none")
    figure, axes = plt.subplots(1, len(runs), figsize=(5.6 * len(runs), 4.9), squeeze=False)
    for ax, (problem, run) in zip(axes.flat, runs.items(), strict=True):
        draw_panel(ax, problem, run, clock)
    axes[0, 0].set_ylabel("loss of the weights without noise", color=FAINT, fontsize=9)
    names = {name for run in runs.values() for name in run}
    handles = [plt.Line2D([], [], color=SHOWN[n][0], linewidth=3, label=SHOWN[n][1]) for n in SHOWN if n in names]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.045, 1.0), ncols=3, frameon=False, fontsize=10)
    last = max((looks[-1] for run in runs.values() for looks in run.values()), key=lambda row: row["date"])
    threads = f"{last['threads']} thread" + ("" if last["threads"] == "1" else "s")
    note = "Dots: the loss of l0-python's last epoch (dashed) is reached, with at most 2 % more records in use.\n"
    note += f"Price of a record {float(last['lambda_l0']):g}.  "
    note += f"{last['device']}, {threads}, torch {last['torch']}, {last['date'][:10]}"
    figure.text(0.055, 0.02, note, color=FAINT, fontsize=8.5, linespacing=1.4)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.79, bottom=0.2, wspace=0.14)
    return figure


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=RESULTS / "convergence.csv")
    parser.add_argument("--out", type=Path, help="a .png; the .svg goes beside it (default: beside the CSV)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args(arguments)
    runs = latest(options.csv, CLOCKS[options.clock][0])
    save(draw(runs, options.clock), options.out or options.csv.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
