"""Every option of the command line, in one place, with the defaults that work in practice."""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

DEFAULT_LAMBDA_L0 = float("1e-3")
"""An object of its own: with --target-records, only a --lambda-l0 that was typed is in the way."""
LOSSES = ("mse", "relative", "relative_epsilon", "capped_mape")
REQUIRABLE = ("mean_error", "max_error", "share_within_10", "active")
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}


@dataclass(frozen=True)
class Requirement:
    """A quality that the result must have, such as ``mean_error<=0.02``."""

    key: str
    comparison: str
    bound: float

    def met(self, figures: dict[str, float]) -> bool:
        return _COMPARISONS[self.comparison](figures[self.key], self.bound)

    def __str__(self) -> str:
        return f"{self.key}{self.comparison}{self.bound:g}"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """States the defaults, but only those that say something."""

    def _get_help_string(self, action):
        silent = action.default is None or action.default is False or action.default == []
        return action.help if silent else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Complains in one line, as all other bad input does, and does not guess at shortened options."""

    def __init__(self, **options):
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        print(f"l0fast: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(2)


def _requirement(text: str) -> Requirement:
    found = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*", text)
    if not found or found[1] not in REQUIRABLE:
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(REQUIRABLE)} as in mean_error<=0.02, got {text!r}"
        )
    return Requirement(found[1], found[2], _number(found[3]))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def _multiplier(text: str) -> tuple[str, float]:
    group, separator, factor = text.rpartition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected GROUP=FACTOR, got {text!r}")
    return group, _number(factor)


def _level(text: str) -> tuple[int, float]:
    level, separator, factor = text.partition("=")
    if not separator or not level.strip().isdigit():
        raise argparse.ArgumentTypeError(f"expected LEVEL=FACTOR, got {text!r}")
    return int(level), _number(factor)


def _whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {value}")
        return value

    return parse


def build_parser(command: Callable[[str], Callable]) -> argparse.ArgumentParser:
    """The parser of all commands; ``command(name)`` is what a command's ``options.run`` will be."""
    parser = _Parser(prog="l0fast", description="Calibrates survey weights: few records, published totals, fast.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    calibrate = commands.add_parser("calibrate", help="find weights whose totals meet the targets")
    _add_problem(calibrate)
    _add_fit(calibrate)
    _add_files(calibrate)
    check = commands.add_parser("check", help="look for what cannot work, without a run")
    _add_problem(check)
    _add_device(check.add_argument_group("device").add_argument)
    compare = commands.add_parser("compare", help="two runs side by side: records, weights, errors")
    for name in ("first", "second"):
        compare.add_argument(name, metavar=name.upper(), help="the JSON file of a run, or a weights file")
    compare.add_argument("--json", metavar="FILE", help="everything that was compared")
    compare.add_argument(
        "--csv", metavar="FILE.csv", help="the errors of both on every target; needs --diagnostics of both"
    )
    info = commands.add_parser("info", help="versions, instruction set, threads, CUDA")
    demo = commands.add_parser("demo", help="calibrate the bundled CPS problem (1,513 targets, 40,000 records)")
    demo.add_argument("--out", metavar="FOLDER", default="l0fast-demo", help="where the results go; made if missing")
    demo.add_argument("--epochs", metavar="N", type=_whole(1), default=1000, help="passes over the problem")
    demo.add_argument(
        "--lambda-l0", metavar="X", type=_number, default=1e-3, help="price of a record: more of it keeps fewer"
    )
    demo.add_argument("--seed", metavar="N", type=_whole(0), default=0, help="governs every draw")
    demo.add_argument(
        "--threads", metavar="N", type=_whole(1, 4096), default=None, help="CPU threads (default: torch's own choice)"
    )
    for sub in (calibrate, check, compare, info, demo):
        name = sub.prog.rpartition(" ")[2]
        sub.set_defaults(run=command(name))
    return parser


def _add_problem(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("problem")
    group.add_argument(
        "matrix", metavar="MATRIX", nargs="?", help="targets x records, .npz (scipy.sparse.save_npz) or .mtx[.gz]"
    )
    group.add_argument(
        "--orient",
        choices=("targets_by_records", "records_by_targets"),
        default="targets_by_records",
        help="what rows and columns of MATRIX are",
    )
    group.add_argument(
        "--data",
        metavar="FILE",
        help="instead of MATRIX: a parquet or CSV file or a folder of parquet files, a row for each record; needs "
        "l0fast[data], and --targets are then in words, with columns name,measure,filter,value and "
        "optionally group,weight,scale,tolerance (see README)",
    )
    group.add_argument("--id", metavar="COLUMN", help="column of --data that names the records in the weights file")
    group.add_argument("--weight", metavar="COLUMN", help="column of --data with the initial weights (default: all 1)")
    group.add_argument(
        "--targets",
        metavar="FILE",
        required=True,
        help="CSV or parquet, a row for each row of MATRIX: name,value and optionally weight,scale,tolerance,group,"
        "parent (what a target is a part of)",
    )
    group.add_argument(
        "--parents",
        metavar="FILE",
        help="CSV or parquet about parents named in the column parent of --targets that are no targets themselves: "
        "name and optionally value (default: the sum of the children's), parent, weight",
    )
    group.add_argument(
        "--hierarchy-weight",
        metavar="X",
        type=_number,
        default=1.0,
        help="what a parent's error counts, beside a target's",
    )
    group.add_argument(
        "--level-weight",
        metavar="LEVEL=FACTOR",
        type=_level,
        action="append",
        default=[],
        help="factor for parents of a level, 1 for those of targets alone; may be repeated",
    )
    group.add_argument(
        "--init-weights", metavar="FILE", help="initial weights: file.npy or file.csv:column (default: all 1)"
    )
    group.add_argument("--loss", choices=LOSSES, default="relative", help="how a miss is counted (see README)")
    group.add_argument("--epochs", metavar="N", type=_whole(0), default=1000, help="passes over the problem, in total")


def _add_fit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fit")
    add = group.add_argument
    add(
        "--lambda-l0",
        metavar="X",
        type=_number,
        default=DEFAULT_LAMBDA_L0,
        help="price of a record in use: more of it keeps fewer records",
    )
    add("--target-records", metavar="K", type=_whole(1), help="end with K records within 1 %%, instead of --lambda-l0")
    add("--exact", action="store_true", help="end with exactly --target-records")
    add("--l1-lambda", metavar="X", type=_number, help="choose records by an L1 norm, instead of --lambda-l0")
    add("--bounds", metavar="FILE", help="CSV or parquet with columns low,high: bounds of each record's weight if kept")
    add("--min-weight", metavar="X", type=_number, help="least weight of a record kept")
    add("--max-weight-ratio", metavar="X", type=_number, help="largest weight over initial weight")
    add("--mass", choices=("free", "conserve"), default="free", help="conserve: keep the total of the initial weights")
    add("--anchor", choices=("initial",), help="--lambda-l2 is the price of the squared ratio to the initial weight")
    add("--integerize", action="store_true", help="end with whole weights: truncate, replicate, sample (--seed)")
    add("--refit", metavar="N", type=_whole(1), help="then train the weights kept for N epochs without gates")
    add("--lambda-l2", metavar="X", type=_number, default=1e-12, help="price of a squared weight")
    add("--lr", metavar="X", type=_number, default=0.15, help="Adam's step")
    add(
        "--tol",
        metavar="X",
        type=_number,
        help="end early, when --patience epochs lower the objective by less than this share",
    )
    add("--patience", metavar="N", type=_whole(1), help="epochs that --tol waits (default: 60)")
    add(
        "--schedule",
        choices=("constant", "anneal"),
        default="constant",
        help="anneal: gates at first softer and dearer, --lr falls in the second half; try --epochs 400 --lr 0.3",
    )
    add("--beta", metavar="X", type=_number, default=0.35, help="temperature of the gates")
    add("--gamma", metavar="X", type=_number, default=-0.1, help="lower end of the gates' stretched interval, below 0")
    add("--zeta", metavar="X", type=_number, default=1.1, help="upper end of the gates' stretched interval, above 1")
    add("--keep-prob", metavar="X", type=_number, default=0.999, help="initial probability that a record is kept")
    add(
        "--jitter",
        metavar="X",
        type=_number,
        default=0.05,
        help="standard deviation of noise on the initial log weights",
    )
    add(
        "--alpha-jitter",
        metavar="X",
        type=_number,
        default=0.01,
        help="standard deviation of noise on the initial gates",
    )
    add("--no-gates", action="store_true", help="keep every record")
    add("--no-normalize-groups", action="store_true", help="do not divide a target's loss by its group's size")
    add(
        "--group-multiplier",
        metavar="GROUP=FACTOR",
        type=_multiplier,
        action="append",
        default=[],
        help="factor for a group of targets; may be repeated",
    )
    add(
        "--holdout",
        metavar="K",
        type=_whole(2),
        help="also fit without a K-th of the targets, K times, and judge these",
    )
    add("--holdout-by", choices=("targets", "groups"), default="targets", help="what --holdout leaves out together")
    add("--loss-cap", metavar="X", type=_number, default=1.0, help="for capped_mape: an error beyond it costs no more")
    add(
        "--seed",
        metavar="N",
        type=_whole(0),
        default=0,
        help="governs every draw: the same seed gives the same weights",
    )
    _add_device(add)
    add("--threads", metavar="N", type=_whole(1, 4096), default=None, help="CPU threads (default: torch's own choice)")


def _add_device(add: Callable) -> None:
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")


def _add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    add = group.add_argument
    add("-o", "--output", metavar="WEIGHTS", required=True, help="weights: .npy, .csv or .parquet")
    add(
        "--json",
        metavar="FILE",
        help="options, versions, sha256, timings, quality (default: WEIGHTS with suffix .json)",
    )
    add("--diagnostics", metavar="FILE.csv", help="every target before and after")
    add("--report", metavar="FILE.html", help="one HTML file with pictures, needs l0fast[report]")
    add("--log", metavar="FILE.csv", help="every target every --verbose-freq epochs")
    add(
        "--verbose-freq",
        metavar="N",
        type=_whole(1),
        default=100,
        help="epochs between lines of progress and of the log",
    )
    add("--checkpoint", metavar="FILE", help="save the run to this file as it goes")
    add("--checkpoint-freq", metavar="N", type=_whole(1), default=100, help="epochs between checkpoints")
    add(
        "--process-timeout",
        metavar="SECONDS",
        type=_whole(1),
        default=1800,
        help="under torchrun: how long to wait for another process, which may still be reading",
    )
    add("--resume", action="store_true", help="continue from --checkpoint until --epochs in total")
    add("--no-preflight", action="store_true", help="run without looking for what cannot work")
    add(
        "--require",
        metavar="KEY<=X",
        type=_requirement,
        action="append",
        default=[],
        help=f"exit with 1 unless the result has this quality; keys {', '.join(REQUIRABLE)}; may be repeated",
    )
