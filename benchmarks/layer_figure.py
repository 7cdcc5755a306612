"""Draws benchmarks/results/layers.png and .svg from the CSV of bench_layers.py: time of a training step, and of gates.

    python benchmarks/layer_figure.py [--csv FILE] [--out FILE.png] [--mode step+adam]

Of each case the latest run is shown. The gate ops are always shown forward and backward together.
"""

import argparse
import csv
import sys
from pathlib import Path

from common import RESULTS
from figures import COLOURS as CALIBRATION
from figures import FAINT, GAP, INK, STEP, axis_label, milliseconds, plt, save, style_axis, write_beside
from matplotlib.axes import Axes

COLOURS = {
    "l0fast": CALIBRATION["l0fast"],
    "dense": CALIBRATION["expert torch"],
    "copy": CALIBRATION["expert torch"],
    "l0-python compiled": "#ecc59c",
    "l0-python": CALIBRATION["l0-python"],
}
PANELS = {
    ("L0Linear 784 → 256", "batch 128"): {"linear784-first": "first layer", "linear784-inner": "inner layer"},
    ("L0Linear 1024 → 1024", "batch 128"): {"linear1024-first": "first layer", "linear1024-inner": "inner layer"},
    ("L0Linear 4096 → 4096", "batch 64"): {"linear4096-first": "first layer", "linear4096-inner": "inner layer"},
    ("L0Conv2d 64 → 128, 3×3", "32×32, batch 32"): {
        "conv-weight": "a gate per weight",
        "conv-channel": "a gate per channel",
    },
    ("SparseMLP 784-256-256-10", "batch 128"): {"mlp": "three layers"},
    ("4096×4096 gates alone", "forward and backward, time of one gate"): {
        "hard_concrete4096": "gates",
        "gated_weight4096": "weight × gates, and penalty",
    },
}
"""Title and detail of each panel, and the cases in it."""

Cases = dict[str, dict[str, dict]]


def latest(path: Path, mode: str) -> Cases:
    """Rows of the latest run of each case in this mode, by contender. Gate ops have one mode with a gradient."""
    found: Cases = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["mode"] != ("step" if row["unit"] == "ns/gate" else mode):
                continue
            run = found.get(row["case"], {})
            if any(other["date"] != row["date"] for other in run.values()):
                run = {}  # a newer run: rows of two runs are never compared
            found[row["case"]] = {**run, row["contender"]: row}
    return found


def nanoseconds(x: float) -> str:
    return f"{x:.0f} ns" if x >= 10 else f"{x:.2g} ns"


def milliseconds_fine(x: float) -> str:
    return milliseconds(x) if x >= 1 else f"{x:.2f} ms"


def ratio_label(row: dict, base: dict | None) -> str:
    """The inverse of l0fast's ratio to this contender: a median of the rounds' ratios, as in the table."""
    column = {"dense": "ratio_dense", "l0-python": "ratio_eager", "l0-python compiled": "ratio_compiled"}
    column = column.get(row["contender"])
    if base is None or column is None or not base[column]:
        return ""
    return f"   {1 / float(base[column]):.2g}×"


def draw_panel(ax: Axes, title: tuple[str, str], cases: dict[str, str], runs: Cases) -> None:
    """Bars of one panel: its cases below each other, l0fast first in each."""
    shown = {case: runs[case] for case in cases if case in runs}
    rows = [row for run in shown.values() for row in run.values() if row["contender"] in COLOURS]
    per_gate = rows[0]["unit"] == "ns/gate"
    medians = [float(row["median"]) for row in rows]
    label = (lambda x: f"{x:g} ns") if per_gate else axis_label
    # Bars of a logarithmic axis have no natural beginning: half the shortest time. The right end holds a label.
    style_axis(ax, min(medians) / 2, max(medians) * (max(medians) / min(medians)) ** 0.6 * 2, label)
    position, ticks, names = 0.0, [], []
    for case, run in shown.items():
        place = ax.get_yaxis_transform()
        ax.text(0, position - 0.78, cases[case], transform=place, color=FAINT, fontsize=9, va="center")
        for contender in (name for name in COLOURS if name in run):
            median, ours = float(run[contender]["median"]), contender == "l0fast"
            ax.barh(position, median, height=0.76, color=COLOURS[contender], zorder=2)
            written = nanoseconds(median) if per_gate else milliseconds_fine(median)
            write_beside(ax, median, position, written + ratio_label(run[contender], run.get("l0fast")), bold=ours)
            ticks.append(position)
            names.append(contender)
            position += STEP
        position += GAP
    ax.set_yticks(ticks, names)
    ax.set_ylim(position - GAP - 0.4, -1.2)
    ax.text(0, 1.09, title[0], transform=ax.transAxes, color=INK, fontsize=11.5, fontweight="bold")
    ax.text(0, 1.025, title[1], transform=ax.transAxes, color=FAINT, fontsize=9)


def draw(runs: Cases, mode: str) -> plt.Figure:
    """A panel for each layer that has been measured, each on its own logarithmic axis.

    Raises:
        ValueError: none of the cases is in the CSV.
    """
    panels = {title: cases for title, cases in PANELS.items() if not runs.keys().isdisjoint(cases)}
    if not panels:
        raise ValueError(f"expected rows of {', '.join(c for cases in PANELS.values() for c in cases)}, found none")
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    width, height = 5.1 * columns, 3.4 * lines + 0.5
    figure, axes = plt.subplots(lines, columns, figsize=(width, height), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (title, cases) in zip(axes.flat, panels.items(), strict=False):
        draw_panel(ax, title, cases, runs)
    deepest = max(ax.get_ylim()[0] for ax in axes.flat[: len(panels)])
    for ax in axes.flat[: len(panels)]:
        ax.set_ylim(deepest, -1.2)  # bars of one height, however many a panel has
    last = max((row for run in runs.values() for row in run.values()), key=lambda row: row["date"])
    what = "with a fused Adam" if mode == "step+adam" else "no optimizer"
    note = f"Median time of one training step ({what}), logarithmic; × is the ratio to l0fast in the same run.  "
    note += f"{last['device']}, {last['threads']} threads, torch {last['torch']}, {last['date'][:10]}"
    figure.text(1.7 / width, 0.15 / height, note, color=FAINT, fontsize=8.5)
    edges = {"left": 1.7 / width, "right": 0.99, "top": 1 - 0.55 / height, "bottom": 0.75 / height}
    figure.subplots_adjust(**edges, wspace=0.42, hspace=0.36)
    return figure


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=RESULTS / "layers.csv")
    parser.add_argument("--out", type=Path, help="a .png; the .svg goes beside it (default: beside the CSV)")
    parser.add_argument("--mode", choices=["step", "step+adam"], default="step", help="of the layers")
    options = parser.parse_args(arguments)
    save(draw(latest(options.csv, options.mode), options.mode), options.out or options.csv.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
