"""``l0fast demo``: a real calibration problem, start to end."""

import argparse
import shlex
from pathlib import Path

import numpy as np

from . import files, output
from .calibrate import calibrate
from .files import InputError
from .options import build_parser
from .output import say

DATA = Path(__file__).parents[1] / "data" / "cps_tax_problem_40k.npz"

_US_GROUPS = ("US totals", "US by filing status", "US by income", "US by age")


def demo(options: argparse.Namespace) -> int:
    """Writes the bundled problem's targets and initial weights to a folder and runs ``l0fast calibrate`` on it.

    The problem: totals of real CPS tax units for the US, income classes, ages and states. Settings: those of the
    reference measurement with l0-python.
    """
    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: cannot make the folder {folder}: {error.strerror or error}") from None
    files.optional_module("matplotlib", "report", "the report of the demo")
    arguments = _arguments(options, folder)
    parsed = build_parser(lambda name: name).parse_args(arguments)
    output.check_outputs({"--out": str(folder / "targets.csv")}, {})
    with np.load(DATA, allow_pickle=False) as data:
        names, groups = data["names"].tolist(), data["groups"].tolist()
        labels = [_label(name, group) for name, group in zip(names, groups, strict=True)]
        rows = zip(names, data["y"].tolist(), labels, strict=True)
        targets = output.csv_bytes(("name", "value", "group"), rows)
        initial = output.weights_bytes(data["w0"], ".npy")
    output.write_output("--out", folder / "targets.csv", targets)
    output.write_output("--out", folder / "initial_weights.npy", initial)
    say(f"$ l0fast {shlex.join(arguments)}")
    return calibrate(parsed)


def _arguments(options: argparse.Namespace, folder: Path) -> list[str]:
    written = {
        "--targets": "targets.csv",
        "--init-weights": "initial_weights.npy",
        "--output": "weights.npy",
        "--json": "run.json",
        "--diagnostics": "diagnostics.csv",
        "--log": "log.csv",
        "--report": "report.html",
    }
    arguments = ["calibrate", str(DATA)]
    for option, name in written.items():
        arguments += [option, str(folder / name)]
    for option in ("epochs", "lambda_l0", "seed", "threads"):
        if (value := getattr(options, option)) is not None:
            arguments += [f"--{option.replace('_', '-')}", str(value)]
    # The groups are for the report: every target counts the same, as in the reference measurement.
    return [*arguments, "--no-normalize-groups"]


def _label(name: str, group: int) -> str:
    return f"states: {name.rpartition('/')[2]}" if name.startswith("state=") else _US_GROUPS[group]
