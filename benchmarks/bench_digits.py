"""A sparse network on scikit-learn's handwritten digits: is l0fast as accurate and as sparse as l0-python, and faster?

    python benchmarks/bench_digits.py                # five seeds of each package in turn, then the table and the figure
    python benchmarks/bench_digits.py --seeds 2 --epochs 10 --out /tmp/try.csv
    python benchmarks/bench_digits.py --draw         # only the table and the figure of the latest run

SparseMLP(64, 256, 10): 84,480 gated weights. Both packages get the same initial weights, the same order of batches and
the same optimiser, in which gates learn faster than weights; only the gates' noise differs. Loss: cross entropy +
LAMBDA_L0 * (expected open gates) / (training images). Of the 1,797 images a fixed, stratified quarter is for testing.
Seconds are those of training, without imports.
"""

import argparse
import csv
import importlib
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import figures
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from common import RESULTS, append_row, run_facts, timed
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

PACKAGES = {"l0-python": "l0", "l0fast": "l0fast"}
LAMBDA_L0 = 0.1
LR, GATE_LR = 3e-3, 3e-2
EPOCHS, BATCH = 60, 64
GATES = {"temperature": 2 / 3, "init_sparsity": 0.5}
MEASURES = {"accuracy": "test accuracy", "zero_gates": "zero gates", "expected_sparsity": "expected sparsity"}


@dataclass(frozen=True)
class Digits:
    """Images [n, 64] in [0, 1] and their digits [n]."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def load() -> Digits:
    images, digits = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, digits, test_size=0.25, random_state=0, stratify=digits)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
    return Digits(train_x, torch.tensor(parts[2]), test_x, torch.tensor(parts[3]))


def train(package: str, data: Digits, seed: int, epochs: int) -> dict:
    """Trains one network; returns its accuracy, sparsities and seconds."""
    torch.manual_seed(seed)
    model = importlib.import_module(package).SparseMLP(64, 256, 10, **GATES)
    gates = [p for name, p in model.named_parameters() if name.endswith("qz_logits")]
    others = [p for name, p in model.named_parameters() if not name.endswith("qz_logits")]
    # Fused, because Adam takes the same time for both and is not what is compared.
    optimizer = torch.optim.Adam([{"params": others}, {"params": gates, "lr": GATE_LR}], lr=LR, fused=True)
    order = torch.Generator().manual_seed(seed)

    def run_epochs() -> None:
        for _ in range(epochs):
            for batch in torch.randperm(len(data.train_x), generator=order).split(BATCH):
                loss = F.cross_entropy(model(data.train_x[batch]), data.train_y[batch])
                loss = loss + LAMBDA_L0 * model.get_l0_loss() / len(data.train_x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    seconds = timed(run_epochs)
    return {**evaluate(model, data), "seconds": seconds}


@torch.no_grad()
def evaluate(model: torch.nn.Module, data: Digits) -> dict[str, float]:
    """Accuracy on the test images; share of gates that are exactly 0 in evaluation; mean probability of being 0."""
    model.eval()
    gates = [layer.weight_gates for layer in (model.fc1, model.fc2, model.fc3)]
    return {
        "accuracy": (model(data.test_x).argmax(1) == data.test_y).double().mean().item(),
        "zero_gates": (torch.cat([g().flatten() for g in gates]) == 0).double().mean().item(),
        "expected_sparsity": 1 - torch.cat([g.get_active_prob().flatten() for g in gates]).double().mean().item(),
    }


def measure(seeds: int, epochs: int, out: Path) -> None:
    """Each seed of one package, then of the other: a busy moment of the machine meets both."""
    data = load()
    facts = {**run_facts(), "threads": torch.get_num_threads()}
    for package in PACKAGES.values():
        train(package, data, seed=0, epochs=1)  # what the first call of anything costs is nobody's training time
    for seed in range(seeds):
        turn = list(PACKAGES.items())
        for name, package in turn if seed % 2 == 0 else turn[::-1]:
            result = {key: f"{value:.4f}" for key, value in train(package, data, seed, epochs).items()}
            append_row(out, {**facts, "package": name, "seed": seed, "epochs": epochs, **result})
            print(f"{name:10} seed {seed}: " + ", ".join(f"{key} {value}" for key, value in result.items()), flush=True)


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """Mean and half the width of Student's 95 % interval of it."""

    mean: float
    half: float

    @classmethod
    def of(cls, samples: list[float]) -> "Interval":
        """
        Raises:
            ValueError: fewer than two samples.
        """
        if len(samples) < 2:
            raise ValueError(f"expected at least two seeds for an interval, got {len(samples)}")
        error = statistics.stdev(samples) / math.sqrt(len(samples))
        return cls(statistics.mean(samples), float(stats.t.ppf(0.975, len(samples) - 1)) * error)

    def overlaps(self, other: "Interval") -> bool:
        return abs(self.mean - other.mean) <= self.half + other.half

    def percent(self) -> str:
        return f"{self.mean:.2%} ± {self.half:.2%}"


def latest(path: Path) -> dict[str, list[dict]]:
    """Rows of the latest run, by package."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [r for r in rows if r["package"] == name and r["date"] == rows[-1]["date"]] for name in PACKAGES}


def intervals(runs: dict[str, list[dict]]) -> dict[str, dict[str, Interval]]:
    """By package and measure, seconds included."""
    names = (*MEASURES, "seconds")
    return {p: {name: Interval.of([float(r[name]) for r in rows]) for name in names} for p, rows in runs.items()}


def table(runs: dict[str, list[dict]]) -> str:
    found = intervals(runs)
    theirs, ours = (found[name] for name in PACKAGES)
    lines = [f"| {len(runs['l0fast'])} seeds, mean ± 95 % | l0-python | l0fast | |", "|---|---|---|---|"]
    for name, label in MEASURES.items():
        verdict = "intervals overlap" if theirs[name].overlaps(ours[name]) else "**intervals do not overlap**"
        lines.append(f"| {label} | {theirs[name].percent()} | {ours[name].percent()} | {verdict} |")
    seconds = [f"{x['seconds'].mean:.2f} ± {x['seconds'].half:.2f} s" for x in (theirs, ours)]
    ratio = theirs["seconds"].mean / ours["seconds"].mean
    return "\n".join([*lines, f"| training | {seconds[0]} | {seconds[1]} | {ratio:.1f} times as fast |"])


# -- the figure -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, list[dict]]) -> plt.Figure:
    """Accuracy against sparsity, a point for each seed and a cross for the intervals; seconds as bars."""
    found = intervals(runs)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=(1.6, 1))
    for name, rows in runs.items():
        colour = figures.COLOURS[name]
        x, y = ([100 * float(r[key]) for r in rows] for key in ("zero_gates", "accuracy"))
        sparsity, accuracy = found[name]["zero_gates"], found[name]["accuracy"]
        left.scatter(x, y, s=26, color=colour, alpha=0.55, linewidths=0, zorder=2)
        center, half = (100 * sparsity.mean, 100 * accuracy.mean), (100 * sparsity.half, 100 * accuracy.half)
        left.errorbar(*center, xerr=half[0], yerr=half[1], color=colour, linewidth=1.8, label=name, zorder=3)
    left.legend(frameon=False, labelcolor=figures.INK, fontsize=10)
    left.margins(0.25)
    for place, name in enumerate(reversed(PACKAGES)):
        seconds = found[name]["seconds"]
        right.barh(place, seconds.mean, height=0.5, color=figures.COLOURS[name], zorder=2)
        right.errorbar(seconds.mean, place, xerr=seconds.half, color=figures.INK, linewidth=1.2, zorder=3)
        label = f"{seconds.mean:.1f} s"
        right.annotate(
            label, (seconds.mean + seconds.half, place), xytext=(6, 0), textcoords="offset points", va="center"
        )
    right.set_yticks(range(len(PACKAGES)), list(reversed(PACKAGES)))
    right.set_xlim(0, 1.35 * max(x["seconds"].mean + x["seconds"].half for x in found.values()))
    _finish(left, "Accuracy on the test images, %", "gates that are exactly 0, %")
    _finish(right, "Training, seconds", "")
    last = runs["l0fast"][-1]
    note = f"Digits, {last['epochs']} epochs, {len(runs['l0fast'])} seeds, {last['threads']} threads; "
    note += "crosses and whiskers: 95 % interval of the mean. "
    note += f"{last['device']}, torch {last['torch']}, {last['date'][:10]}"
    figure.text(0.06, 0.015, note, color=figures.FAINT, fontsize=7)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.89, bottom=0.19, wspace=0.3)
    return figure


def _finish(ax: plt.Axes, title: str, below: str) -> None:
    ax.set_title(title, loc="left", color=figures.INK, fontsize=11, fontweight="bold")
    ax.set_xlabel(below, color=figures.FAINT, fontsize=9)
    ax.grid(axis="both" if below else "x", color=figures.RULE, linewidth=0.8, zorder=0)
    ax.tick_params(length=0, labelcolor=figures.FAINT, labelsize=9)
    for side in ax.spines.values():
        side.set_visible(False)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=RESULTS / "digits.csv", help="the figures go beside it")
    parser.add_argument("--draw", action="store_true", help="train nothing")
    options = parser.parse_args(arguments)
    if not options.draw:
        measure(options.seeds, options.epochs, options.out)
    runs = latest(options.out)
    print(table(runs))
    figures.save(draw(runs), options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
