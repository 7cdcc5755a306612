"""``l0fast compare A B``: two runs side by side, from their JSON files, or two files of weights."""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..calibration.diagnostics import weight_statistics
from ..calibration.judging import compare_targets, compare_weights
from . import output
from .files import InputError, check_readable, read_columns, to_numbers
from .output import say
from .results import percent

_SHOWN = 5
_SILENT = ("json", "diagnostics", "report", "log", "verbose_freq", "checkpoint", "checkpoint_freq", "resume", "id")
"""Options that do not change a result."""


@dataclass
class Side:
    """What is known of a run."""

    path: str
    weights: np.ndarray
    ids: list | None = None
    """Of the records, where the weights file has them."""
    record: dict = field(default_factory=dict)
    """The JSON file."""
    table: dict[str, list] | None = None
    """The --diagnostics file."""


def compare(options: argparse.Namespace) -> int:
    """Compares and says so. 0 done; everything else raises InputError."""
    inputs = {"FIRST": options.first, "SECOND": options.second}
    outputs = {"--json": options.json, "--csv": options.csv}
    output.check_outputs(outputs, {"FIRST": options.first} if options.first == options.second else inputs)
    sides = [_read_side(argument, path) for argument, path in inputs.items()]
    weights = _aligned(*sides)
    result = {
        "command": "compare",
        "files": [side.path for side in sides],
        "weights": compare_weights(*weights),
        "statistics": [weight_statistics(side.weights) for side in sides],
        "quality": [side.record.get("quality", {}).get("after") for side in sides],
        "options": _differing(*(_options(side.record) for side in sides)),
        "inputs": _differing(*(_digests(side.record) for side in sides)),
        "holdout": [_held_out(side.record) for side in sides],
    }
    table = _table(*sides)
    if table is not None:
        result["targets"] = _summary(table)
    elif options.csv:
        raise InputError("--csv: expected two JSON files of runs with --diagnostics, on the same targets")
    _say(sides, result, table)
    if options.csv:
        output.write_output("--csv", options.csv, output.table_bytes(table))
        say(f"csv: {options.csv}")
    if options.json:
        output.write_output("--json", options.json, output.json_bytes(result))
        say(f"json: {options.json}")
    return 0


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_side(argument: str, path: str) -> Side:
    if not path.lower().endswith(".json"):
        return Side(path, *_read_weights(argument, path))
    check_readable(argument, path)
    try:
        record = json.loads(Path(path).read_bytes())
        files, quality = record["outputs"], record["quality"]["after"]
        written = files["output"]
        complete = record["command"] == "calibrate" and isinstance(quality["mean_error"], int | float | None)
    except (ValueError, KeyError, TypeError, RecursionError):
        complete = False
    if not complete:
        raise InputError(f"{argument}: {path} is not the JSON file of a run of l0fast calibrate")
    weights, ids = _read_weights(argument, _found(written, path))
    if len(weights) != record["problem"]["records"]:
        raise InputError(
            f"{argument}: {path} is of {record['problem']['records']:,} records, its weights file has {len(weights):,}"
        )
    table = None
    if diagnostics := files.get("diagnostics"):
        where = _found(diagnostics, path)
        table = read_columns(argument, where) if Path(where).exists() else None
    return Side(path, weights, ids, record, table)


def _found(written: str, json_path: str) -> str:
    """Where a run's file is now: as the command named it, or beside the JSON file, if all were moved."""
    beside = Path(json_path).parent / Path(written).name
    return written if Path(written).exists() or not beside.exists() else str(beside)


def _read_weights(argument: str, path: str) -> tuple[np.ndarray, list | None]:
    """Weights [n_records], and the ids of the records where the file has them."""
    ids = None
    if path.lower().endswith(".npy"):
        check_readable(argument, path)
        try:
            weights = np.load(path, allow_pickle=False)
            weights = weights.astype(np.float64) if weights.dtype.kind in "biuf" else weights
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{argument}: {path} is damaged or not an array: {str(error).splitlines()[0]}") from None
    else:
        columns = read_columns(argument, path)
        if "weight" not in columns:
            raise InputError(f"{argument}: expected a column weight, got {', '.join(map(str, columns))} in {path}")
        weights = to_numbers(f"{argument}: column weight", columns["weight"], path)
        others = [name for name in columns if name != "weight"]
        if others:
            ids = [str(entry) for entry in columns[others[0]]]
            if len(set(ids)) < len(ids):
                raise InputError(f"{argument}: expected distinct records, got one twice in {path}")
    bad = weights.ndim != 1 or not len(weights) or weights.dtype.kind != "f"
    if bad or not (np.isfinite(weights) & (weights >= 0)).all():
        raise InputError(f"{argument}: expected a vector of finite non-negative weights in {path}")
    return weights, ids


def _aligned(first: Side, second: Side) -> tuple[np.ndarray, np.ndarray]:
    """Both weights in one order of records: by id where both files have ids, a record of one file alone at 0."""
    if first.ids is None or second.ids is None or first.ids == second.ids:
        if len(first.weights) != len(second.weights):
            raise InputError(
                f"SECOND: expected the {len(first.weights):,} records of {first.path}, "
                f"got {len(second.weights):,} in {second.path}"
            )
        return first.weights, second.weights
    places = {name: k for k, name in enumerate(dict.fromkeys([*first.ids, *second.ids]))}
    aligned = np.zeros((2, len(places)))
    for row, side in zip(aligned, (first, second), strict=True):
        row[[places[name] for name in side.ids]] = side.weights
    return aligned[0], aligned[1]


# -- comparing ---------------------------------------------------------------------------------------------------------


def _differing(first: dict, second: dict) -> dict[str, list]:
    """What both have, with different values, by name."""
    return {key: [first[key], second[key]] for key in first if key in second and first[key] != second[key]}


def _options(record: dict) -> dict:
    return {name: value for name, value in record.get("options", {}).items() if name not in _SILENT}


def _digests(record: dict) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in record.get("inputs", {}).items()}


def _held_out(record: dict) -> float | None:
    holdout = record.get("holdout")
    return None if holdout is None else holdout["table"][-1]["held_out_mean"]


def _table(first: Side, second: Side) -> dict[str, np.ndarray] | None:
    """Targets side by side; None without both --diagnostics, or of other targets."""
    if first.table is None or second.table is None:
        return None
    needed = ("name", "target", "after")
    for argument, side in (("FIRST", first), ("SECOND", second)):
        if missing := [column for column in needed if column not in side.table]:
            raise InputError(f"{argument}: expected a column {missing[0]} in the --diagnostics of {side.path}")
    if first.table["name"] != second.table["name"] or first.table["target"] != second.table["target"]:
        return None
    argument = "FIRST and SECOND: --diagnostics"
    numbers = (
        to_numbers(argument, column, side.path)
        for side, column in (
            *((first, first.table["target"]), (first, first.table["after"])),
            (second, second.table["after"]),
        )
    )
    return compare_targets(first.table["name"], *numbers, groups=first.table.get("group"))


def _summary(table: dict[str, np.ndarray]) -> dict:
    """How many targets which run meets better, and where they differ most."""
    gain = np.abs(table["rel_error_first"]) - np.abs(table["rel_error_second"])
    order = np.argsort(-np.abs(gain), kind="stable")[:_SHOWN]
    keys = ("name", "rel_error_first", "rel_error_second")
    return {
        **{f"{which}_better": int((table["better"] == which).sum()) for which in ("first", "second")},
        "same": int((table["better"] == "same").sum()),
        "largest_differences": [{key: table[key][j].item() for key in keys} for j in order],
    }


def _say(sides: list[Side], result: dict, table) -> None:
    for name in result["inputs"]:
        say(f"note: the runs had different files for {name}")
    for side, figures, quality, held in zip(
        sides, result["statistics"], result["quality"], result["holdout"], strict=True
    ):
        text = f"{side.path}: {figures['count']:,} of {figures['records']:,} records in use, "
        text += f"effective sample size {figures['ess']:,.0f}, largest / median weight {figures['largest_ratio']:.3g}"
        if quality:
            text += f", mean relative error {percent(quality['mean_error'])}, largest {percent(quality['max_error'])}"
        say(text + ("" if held is None else f", on targets left out {percent(held)}"))
    w = result["weights"]
    say(
        f"records: {w['in_both']:,} in both, {w['only_first']:,} only in the first, {w['only_second']:,} only in the "
        f"second (overlap {w['overlap']:.3f})"
    )
    say(
        f"weights: correlation {w['correlation']:.4f}, of logarithms in both {w['log_correlation']:.4f}, median ratio "
        f"{w['median_ratio']:.3f}, moved {percent(w['moved_share'])}"
    )
    if table is not None:
        found = result["targets"]
        say(
            f"targets: {found['first_better']:,} met better by the first, {found['second_better']:,} by the second, "
            f"{found['same']:,} alike"
        )
        for row in found["largest_differences"]:
            say(f"  {row['name']}: {percent(row['rel_error_first'])} | {percent(row['rel_error_second'])}")
    for name, (first, second) in result["options"].items():
        say(f"option {name}: {first} | {second}")
