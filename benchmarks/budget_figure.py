"""Draws benchmarks/results/budget.png and .svg from the CSV of bench_budget.py: the error that so many records leave.

    python benchmarks/budget_figure.py [--csv FILE] [--out FILE.png]

Of each problem, budget and way the latest row with the usual price of squared weights is shown.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS
from figures import FAINT, INK, RULE, TITLES, save
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from problems import LAMBDA_L2

WAYS = {
    "random subset, refit": ("#9fb0bb", "o", "a random subset, refitted"),
    "gates": ("#7fb2d1", "o", "l0fast, one run to the budget"),
    "bisection, l0-python": ("#d98c3f", "x", "l0-python at the price a bisection finds"),
    "refit": ("#1d6a96", "o", "the same run, refitted"),
    "L1, refit": ("#2f9e73", "o", "chosen by an L1 norm, refitted"),
}


def latest(path: Path) -> dict[tuple[str, str], dict[int, dict]]:
    """Rows by (problem, way) and budget; of l0-python's bisections only those with a result."""
    found: dict[tuple[str, str], dict[int, dict]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["records"] and float(row["lambda_l2"]) == LAMBDA_L2:
                way = row["way"].split(" (")[0]
                found.setdefault((row["problem"], way), {})[int(row["budget"])] = row
    return found


def draw_panel(ax: Axes, problem: str, rows: dict) -> None:
    for way, (colour, marker, label) in WAYS.items():
        points = sorted(rows.get((problem, way), {}).values(), key=lambda row: int(row["records"]))
        if not points:
            continue
        x, y = [int(row["records"]) for row in points], [100 * float(row["mean_error"]) for row in points]
        line = "none" if way == "bisection, l0-python" else "-"
        ax.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=1.8, markersize=7, label=label, zorder=3)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
    ax.grid(color=RULE, linewidth=0.8, zorder=0)
    ax.tick_params(length=0, which="both", labelcolor=FAINT, labelsize=9)
    for side in ax.spines.values():
        side.set_visible(False)
    title, detail = TITLES[problem]
    ax.text(0, 1.09, title, transform=ax.transAxes, color=INK, fontsize=11.5, fontweight="bold")
    ax.text(0, 1.025, detail, transform=ax.transAxes, color=FAINT, fontsize=9)
    ax.set_xlabel("records in use", color=FAINT, fontsize=9)


def draw(rows: dict) -> plt.Figure:
    """One panel for each problem that has been measured.

    Raises:
        ValueError: none of them is in the CSV.
    """
    problems = [problem for problem in TITLES if any(key[0] == problem for key in rows)]
    if not problems:
        raise ValueError(f"expected rows of {', '.join(TITLES)}, found none")
    figure, axes = plt.subplots(1, len(problems), figsize=(0.6 + 4.6 * len(problems), 4.2), squeeze=False, sharey=True)
    for ax, problem in zip(axes[0], problems, strict=True):
        draw_panel(ax, problem, rows)
    axes[0][0].set_ylabel("mean error of the targets", color=FAINT, fontsize=9)
    axes[0][0].legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    last = max((row for group in rows.values() for row in group.values()), key=lambda row: row["date"])
    note = f"Both axes logarithmic; {last['epochs']} epochs each.  {last['device']}, {last['date'][:10]}"
    figure.text(0.02, 0.015, note, color=FAINT, fontsize=8.5)
    figure.subplots_adjust(left=0.12 if len(problems) == 1 else 0.075, right=0.985, top=0.85, bottom=0.16, wspace=0.08)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=RESULTS / "budget.csv")
    parser.add_argument("--out", type=Path, help="a .png; the .svg goes beside it (default: beside the CSV)")
    options = parser.parse_args(arguments)
    save(draw(latest(options.csv)), options.out or options.csv.with_suffix(".png"))


if __name__ == "__main__":
    main()
