"""Draws benchmarks/results/calibration.png and .svg from the CSV: time of an epoch, for each problem and contender.

    python benchmarks/figures.py [--csv FILE] [--out FILE.png]

Of each problem and state the latest run is shown. A CSV of bench_layers.py is drawn by layer_figure.py.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from common import RESULTS
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

INK, FAINT, RULE = "#27323a", "#6b7780", "#dfe4e8"
COLOURS = {"l0fast": "#1d6a96", "expert torch": "#9fb0bb", "l0-python": "#d98c3f"}
STATES = {"open": "all gates open", "closed90": "90 % closed"}
TITLES = {
    "cps40k": ("CPS, 40,000 tax units", "1,513 targets, 1.2 million nonzeros"),
    "cps280k": ("CPS, 280,005 tax units", "1,562 targets, 8.4 million nonzeros"),
    "synthetic": ("Synthetic, 337,704 records", "32,633 targets, 20.3 million nonzeros"),
}
STEP, GAP = 1.0, 0.9
"""Distance between bars, and what is added between the two states."""


def latest(path: Path) -> dict[tuple[str, str], dict[str, dict]]:
    """Rows of the latest run of each (problem, state), by contender."""
    found: dict[tuple[str, str], dict[str, dict]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["problem"], row["state"])
            run = found.get(key, {})
            if any(other["date"] != row["date"] for other in run.values()):
                run = {}  # a newer run: rows of two runs are never compared
            found[key] = {**run, row["contender"]: row}
    return found


def milliseconds(x: float) -> str:
    if x >= 1000:
        return f"{x / 1000:.1f} s"
    return f"{x:.0f} ms" if x >= 10 else f"{x:.1f} ms"


def ratio_label(row: dict) -> str:
    ratio = float(row["ratio_to_l0fast"])
    return f"{ratio:.0f}×" if ratio >= 9.5 else f"{ratio:.1f}×"


def draw_panel(ax: Axes, problem: str, runs: dict, with_names: bool) -> None:
    """Bars of one problem: the states below each other, l0fast first in each."""
    position, ticks, names = 0.0, [], []
    for state, meaning in STATES.items():
        rows = runs.get((problem, state), {})
        ax.text(0, position - 0.78, meaning, transform=ax.get_yaxis_transform(), color=FAINT, fontsize=9, va="center")
        for contender in COLOURS:
            if contender not in rows:
                continue
            median = float(rows[contender]["median_ms"])
            ours = contender == "l0fast"
            ax.barh(position, median, height=0.76, color=COLOURS[contender], zorder=2)
            label = milliseconds(median) + ("" if ours else f"   {ratio_label(rows[contender])}")
            write_beside(ax, median, position, label, bold=ours)
            ticks.append(position)
            names.append(contender)
            position += STEP
        position += GAP
    ax.set_yticks(ticks, names if with_names else [""] * len(names))
    ax.set_ylim(position - GAP - 0.4, -1.2)
    title, detail = TITLES[problem]
    ax.text(0, 1.09, title, transform=ax.transAxes, color=INK, fontsize=11.5, fontweight="bold")
    ax.text(0, 1.025, detail, transform=ax.transAxes, color=FAINT, fontsize=9)


def axis_label(x: float) -> str:
    return f"{x / 1000:g} s" if x >= 1000 else f"{x:g} ms"


def write_beside(ax: Axes, x: float, y: float, label: str, bold: bool) -> None:
    """The label of a bar that ends at (x, y), over the grid."""
    ax.annotate(
        *(label, (x, y)),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=INK,
        fontsize=9.5,
        fontweight="bold" if bold else "normal",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        zorder=3,
    )


def style_axis(ax: Axes, low: float, high: float, label=axis_label) -> None:
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: label(x)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x", color=RULE, linewidth=0.8, zorder=0)
    ax.tick_params(axis="both", length=0, labelcolor=FAINT, labelsize=9)
    ax.tick_params(axis="y", labelcolor=INK, labelsize=10)
    ax.tick_params(axis="x", which="minor", length=0)
    for side in ax.spines.values():
        side.set_visible(False)


def draw(runs: dict) -> plt.Figure:
    """One panel for each problem that has been measured, on one common logarithmic axis.

    Raises:
        ValueError: none of the problems is in the CSV.
    """
    problems = [problem for problem in TITLES if any(key[0] == problem for key in runs)]
    if not problems:
        raise ValueError(f"expected rows of {', '.join(TITLES)}, found none")
    shown = {key: rows for key, rows in runs.items() if key[0] in problems}
    medians = [float(row["median_ms"]) for rows in shown.values() for row in rows.values()]
    width = 1.3 + 3.5 * len(problems)
    figure, axes = plt.subplots(1, len(problems), figsize=(width, 3.7), squeeze=False)
    for k, (ax, problem) in enumerate(zip(axes[0], problems, strict=True)):
        # Bars of a logarithmic axis have no natural beginning: half the shortest time. The right end holds a label.
        style_axis(ax, min(medians) / 2, max(medians) * 14)
        draw_panel(ax, problem, runs, with_names=k == 0)
    last = max((row for rows in shown.values() for row in rows.values()), key=lambda row: row["date"])
    note = "Median time of one epoch, logarithmic; × is the ratio to l0fast in the same run.  "
    note += f"{last['device']}, torch {last['torch']}, {last['date'][:10]}"
    figure.text(0.15 / width, 0.02, note, color=FAINT, fontsize=8.5)
    figure.subplots_adjust(left=1.25 / width, right=0.985, top=0.86, bottom=0.15, wspace=0.07)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=RESULTS / "calibration.csv")
    parser.add_argument("--out", type=Path, help="a .png; the .svg goes beside it (default: beside the CSV)")
    options = parser.parse_args(arguments)
    save(draw(latest(options.csv)), options.out or options.csv.with_suffix(".png"))


def save(figure: plt.Figure, out: Path) -> None:
    """Writes the figure as .png and .svg beside it, prints both paths and closes the figure."""
    # Text stays text in the SVG: small, and sharp in the reader's own font.
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "l0fast"}):
        for path in (out, out.with_suffix(".svg")):
            figure.savefig(path, dpi=170, metadata={"Date": None} if path.suffix == ".svg" else None)
            print(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
