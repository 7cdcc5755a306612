"""The column ``parent`` of the targets and the file --parents: which targets add up to what."""

import argparse

from ..calibration.hierarchy import Family, Hierarchy
from .files import InputError, Targets, read_columns, to_numbers
from .output import say

_WORTH_SAYING = 1e-3
"""Share of a total that its children's values may be off without a line about it."""
_SHOWN = 3


def read_hierarchy(targets: Targets, options: argparse.Namespace) -> Hierarchy | None:
    """The hierarchy of a problem's targets; None where they name no parents.

    Raises:
        InputError: something in the column ``parent`` or in --parents that makes no hierarchy.
    """
    if targets.parents is None:
        for option, given in (("--parents", options.parents), ("--level-weight", options.level_weight)):
            if given:
                raise InputError(f"{option}: expected a column parent in {options.targets}, there is none")
        return None
    names, known = _read_parents(options.parents) if options.parents else ([], {"totals": {}, "of": {}, "weights": {}})
    named = {*filter(None, targets.parents), *known["of"].values()}
    for label in names:
        if label not in named:
            raise InputError(f"--parents: {label} in {options.parents} is nobody's parent")
        if label in targets.names and label in known["totals"]:
            raise InputError(f"--parents: {label} in {options.parents} has a value in {options.targets} already")
    weight, by_level = options.hierarchy_weight, dict(options.level_weight)
    try:
        hierarchy = Hierarchy.from_parents(
            targets.parents, targets.names, **known, weight=weight, level_weights=by_level
        )
        Family.of(hierarchy, len(targets.names)).omega(per_level=False)
        worst = hierarchy.consistency(targets.values)
    except (ValueError, TypeError) as error:
        raise InputError(f"--targets: column parent: {str(error).removeprefix('hierarchy: ')}") from None
    _say_inconsistent(worst)
    return hierarchy


def _read_parents(path) -> tuple[list[str], dict[str, dict]]:
    """Names, and what the columns ``value,parent,weight`` say, where a field may be empty."""
    columns = read_columns("--parents", path)
    if "name" not in columns:
        raise InputError(f"--parents: expected a column name, got {', '.join(map(str, columns)) or 'none'} in {path}")
    names = [str(name) for name in columns["name"]]
    if len(set(names)) < len(names):
        raise InputError(f"--parents: expected distinct names, got one twice in {path}")

    def filled(column: str) -> dict:
        entries = zip(names, columns.get(column, [None] * len(names)), strict=True)
        return {name: entry for name, entry in entries if entry is not None and str(entry).strip()}

    def numbers(column: str) -> dict[str, float]:
        given = filled(column)
        values = to_numbers(f"--parents: column {column}", list(given.values()), path)
        return dict(zip(given, values.tolist(), strict=True))

    of = {name: str(label) for name, label in filled("parent").items()}
    return names, {"totals": numbers("value"), "of": of, "weights": numbers("weight")}


def _say_inconsistent(rows: list[dict]) -> None:
    off = [row for row in rows if abs(row["rel_difference"]) > _WORTH_SAYING]
    if off:
        shown = ", ".join(f"{row['label']} by {100 * row['rel_difference']:+.1f} %" for row in off[:_SHOWN])
        more = ", ..." if len(off) > _SHOWN else ""
        say(f"note: {len(off):,} of {len(rows):,} parents are not the sum of their children's values: {shown}{more}")


def levels_line(levels: list[dict]) -> str:
    """A line for the terminal."""
    parts = [
        f"level {row['level']} {row['kind']} ({row['targets']:,}) {100 * row['mean_before']:.2g} % -> "
        f"{100 * row['mean_after']:.2g} %"
        for row in levels
    ]
    return "mean relative error by level: " + ", ".join(parts)
