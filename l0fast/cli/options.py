"""Every option of the command line, in one place, with the defaults that work in practice."""

import argparse
from collections.abc import Callable

from .parsing import REQUIRABLE, Parser, level, multiplier, number, requirement, whole

DEFAULT_LAMBDA_L0 = float("1e-3")
"""An object of its own: with --target-records, only a --lambda-l0 that was typed is in the way."""
LOSSES = ("mse", "relative", "relative_epsilon", "capped_mape")


def build_parser(command: Callable[[str], Callable]) -> argparse.ArgumentParser:
    """The parser of all commands; ``command(name)`` is what a command's ``options.run`` will be."""
    parser = Parser(prog="l0fast", description="Calibrates survey weights: few records, published totals, fast.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    calibrate = commands.add_parser("calibrate", help="find weights whose totals meet the targets")
    for add in (_add_problem, _add_price, _add_limits, _add_ending, _add_fit, _add_files):
        add(calibrate)
    frontier = commands.add_parser("frontier", help="what fewer records cost: one fit along decreasing budgets")
    for add in (_add_problem, _add_frontier, _add_limits):
        add(frontier)
    _add_fit(frontier, schedule=False)
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
    demo.add_argument("--epochs", metavar="N", type=whole(1), default=1000, help="passes over the problem")
    demo.add_argument(
        "--lambda-l0", metavar="X", type=number, default=1e-3, help="price of a record: more of it keeps fewer"
    )
    demo.add_argument("--seed", metavar="N", type=whole(0), default=0, help="governs every draw")
    demo.add_argument(
        "--threads", metavar="N", type=whole(1, 4096), default=None, help="CPU threads (default: torch's own choice)"
    )
    for sub in (calibrate, frontier, check, compare, info, demo):
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
        type=number,
        default=1.0,
        help="what a parent's error counts, beside a target's",
    )
    group.add_argument(
        "--level-weight",
        metavar="LEVEL=FACTOR",
        type=level,
        action="append",
        default=[],
        help="factor for parents of a level, 1 for those of targets alone; may be repeated",
    )
    group.add_argument(
        "--init-weights", metavar="FILE", help="initial weights: file.npy or file.csv:column (default: all 1)"
    )
    group.add_argument("--loss", choices=LOSSES, default="relative", help="how a miss is counted (see README)")
    group.add_argument("--epochs", metavar="N", type=whole(0), default=1000, help="passes over the problem, in total")


def _add_price(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("records to keep, one of").add_argument
    add(
        "--lambda-l0",
        metavar="X",
        type=number,
        default=DEFAULT_LAMBDA_L0,
        help="price of a record in use: more of it keeps fewer records",
    )
    add(
        "--lambda-share",
        metavar="X",
        type=number,
        help="price of all records together, whatever their number",
    )
    add("--target-records", metavar="K", type=whole(1), help="end with K records within 1 %%")
    add("--l1-lambda", metavar="X", type=number, help="choose by an L1 norm: price of a record at its initial weight")
    add("--no-gates", action="store_true", help="keep every record")


def _add_ending(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("ending").add_argument
    add("--exact", action="store_true", help="end with exactly --target-records")
    add("--refit", metavar="N", type=whole(1), help="then train the weights kept for N epochs without gates")
    add("--integerize", action="store_true", help="end with whole weights: truncate, replicate, sample (--seed)")
    add(
        "--tol",
        metavar="X",
        type=number,
        help="end early, when --patience epochs lower the objective by less than this share",
    )
    add("--patience", metavar="N", type=whole(1), help="epochs that --tol waits (default: 60)")
    add("--holdout", metavar="K", type=whole(2), help="also fit without each K-th of the targets, and judge it")
    add("--holdout-by", choices=("targets", "groups"), default="targets", help="what --holdout leaves out together")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("limits of the weights").add_argument
    add("--bounds", metavar="FILE", help="CSV or parquet with columns low,high: bounds of each record's weight if kept")
    add("--min-weight", metavar="X", type=number, help="least weight of a record kept")
    add("--max-weight-ratio", metavar="X", type=number, help="largest weight over initial weight")
    add("--mass", choices=("free", "conserve"), default="free", help="conserve: keep the total of the initial weights")
    add("--anchor", choices=("initial",), help="--lambda-l2 is the price of the squared ratio to the initial weight")


def _add_fit(parser: argparse.ArgumentParser, schedule: bool = True) -> None:
    add = parser.add_argument_group("fit").add_argument
    add("--lambda-l2", metavar="X", type=number, default=1e-12, help="price of a squared weight")
    add("--lr", metavar="X", type=number, default=0.15, help="Adam's step")
    if schedule:
        add(
            "--schedule",
            choices=("constant", "anneal"),
            default="constant",
            help="anneal: gates at first softer and dearer, --lr falls in the second half; try --epochs 400 --lr 0.3",
        )
    add("--beta", metavar="X", type=number, default=0.35, help="temperature of the gates")
    add("--gamma", metavar="X", type=number, default=-0.1, help="lower end of the gates' stretched interval, below 0")
    add("--zeta", metavar="X", type=number, default=1.1, help="upper end of the gates' stretched interval, above 1")
    add("--keep-prob", metavar="X", type=number, default=0.999, help="initial probability that a record is kept")
    noise = "standard deviation of noise on the initial"
    add("--jitter", metavar="X", type=number, default=0.05, help=f"{noise} log weights")
    add("--alpha-jitter", metavar="X", type=number, default=0.01, help=f"{noise} gates")
    add("--no-normalize-groups", action="store_true", help="do not divide a target's loss by its group's size")
    add(
        "--group-multiplier",
        metavar="GROUP=FACTOR",
        type=multiplier,
        action="append",
        default=[],
        help="factor for a group of targets; may be repeated",
    )
    add("--loss-cap", metavar="X", type=number, default=1.0, help="for capped_mape: an error beyond it costs no more")
    add(
        "--seed", metavar="N", type=whole(0), default=0, help="governs every draw: the same seed gives the same weights"
    )
    _add_device(add)
    add("--threads", metavar="N", type=whole(1, 4096), default=None, help="CPU threads (default: torch's own choice)")


def _add_frontier(parser: argparse.ArgumentParser) -> None:
    """What the command has besides a fit's options; build_model finds the others' defaults."""
    group = parser.add_argument_group("frontier")
    add = group.add_argument
    add("--records", metavar="K", type=whole(1), nargs="+", required=True, help="budgets of records, decreasing")
    add("--exact", action="store_true", help="end each with exactly its budget")
    add("--refit", action="store_true", help="train the weights of each point once more without gates, for --epochs")
    add("-o", "--output", metavar="FILE.csv", required=True, help="a row for each budget")
    add("--plot", metavar="FILE", help="picture: .svg, .png or .pdf, needs l0fast[report]")
    add("--weights", metavar="FOLDER", help="weights of each budget, as weights-K.npy; made if missing")
    add("--verbose-freq", metavar="N", type=whole(1), default=100, help="epochs between lines of progress")
    add("--no-preflight", action="store_true", help="run without looking for what cannot work")
    parser.set_defaults(no_gates=False, resume=False, checkpoint=None)


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
        type=whole(1),
        default=100,
        help="epochs between lines of progress and of the log",
    )
    add("--checkpoint", metavar="FILE", help="save the run to this file as it goes")
    add("--checkpoint-freq", metavar="N", type=whole(1), default=100, help="epochs between checkpoints")
    add(
        "--process-timeout",
        metavar="SECONDS",
        type=whole(1),
        default=1800,
        help="under torchrun: how long to wait for another process, which may still be reading",
    )
    add("--resume", action="store_true", help="continue from --checkpoint until --epochs in total")
    add("--no-preflight", action="store_true", help="run without looking for what cannot work")
    add(
        "--require",
        metavar="KEY<=X",
        type=requirement,
        action="append",
        default=[],
        help=f"exit with 1 unless the result has this quality; keys {', '.join(REQUIRABLE)}; may be repeated",
    )
