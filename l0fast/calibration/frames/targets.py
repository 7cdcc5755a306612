"""Targets as users write them: dataclasses, dicts, a DataFrame or a CSV file; margins tables become rows of them."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from .grammar import Condition, parse_filter
from .source import near
from .tables import check_columns, is_frame, missing, plain, table_rows

COUNT = "1"


@dataclass(frozen=True)
class Target:
    """A total to be met: ``sum of w_i measure_i over the records that meet the filter = value``."""

    measure: str | int
    """A column of numbers or truth values, or 1 (also "1") to count records."""
    value: float
    filter: str | None = None
    """See :mod:`.grammar`; a missing value meets no condition, not even ``!=``."""
    name: str | None = None
    """Default: made of measure and filter."""
    group: str | None = None
    weight: float | None = None
    """Factor of its loss, at least 0; 1 where only others have one."""
    scale: float | None = None
    """What its error is divided by; all targets have one or none."""
    tolerance: float | None = None
    """At least 0, for loss_type 'relative_epsilon'; 0 where only others have one."""


@dataclass(frozen=True)
class Margins:
    """A table of totals, one target for each of its rows: the measure's total in the cell ``by[0] == ..., ...``."""

    by: str | list[str]
    """Columns of the records and of the table."""
    totals: object
    """DataFrame, or path of a CSV or parquet file, with the columns ``by`` and ``value``. A cell is a value, or in a
    DataFrame an interval as pandas.cut makes them."""
    measure: str | int = 1
    value: str = "value"
    filter: str | None = None
    """For all cells, besides their own conditions."""
    name: str | None = None
    """Start of the targets' names; default: the measure, or "count"."""
    group: str | None = None
    weight: float | None = None
    scale: float | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Wanted:
    """A target, checked and parsed."""

    name: str
    measure: str | None
    """None counts records."""
    conditions: tuple[Condition, ...]
    filter: str
    """As written, for messages."""
    value: float
    group: str | None
    weight: float | None
    scale: float | None
    tolerance: float | None


def wanted_targets(targets) -> list[Wanted]:
    """All targets in the order given, margins in the order of their tables.

    Args:
        targets: a Target, a Margins, dicts with their fields (``by`` makes it margins), a list of these, a DataFrame
            or the path of a CSV or parquet file with columns ``measure,value`` and optionally ``filter``, ``name``,
            ``group``, ``weight``, ``scale``, ``tolerance``. Missing and empty fields mean not given.

    Raises:
        TypeError, ValueError: the first target at fault, by name or number.
    """
    wanted = []
    for place, item in enumerate(_items(targets), start=1):
        where = f"target {place}"
        if isinstance(item, Mapping):
            item = _from_mapping(item, where)
        if isinstance(item, Margins):
            wanted += _cells(item, where)
        elif isinstance(item, Target):
            wanted.append(_wanted(item, where))
        else:
            raise TypeError(f"targets: expected Target, Margins or dict, got {type(item).__name__} as {where}")
    if not wanted:
        raise ValueError("targets: expected at least one target, got none")
    seen = {}
    for place, target in enumerate(wanted, start=1):
        if (other := seen.setdefault(target.name, place)) != place:
            raise ValueError(f"targets: expected distinct names, got {target.name!r} for targets {other} and {place}")
    return wanted


def _items(targets) -> Iterable:
    if isinstance(targets, Target | Margins | Mapping):
        return [targets]
    if isinstance(targets, str | Path) or is_frame(targets):
        rows = table_rows(targets, "targets")
        check_columns(rows, ("measure", "value"), targets)
        known = [field.name for field in fields(Target)]
        for column in rows[0] if rows else ():  # others are the user's own; a filter that goes unread is not
            if column not in known and (close := difflib.get_close_matches(column.lower(), known, 1, 0.75)):
                raise ValueError(f"targets: unknown column {column!r}; near it: {close[0]}")
        return [{key: entry for key, entry in row.items() if key in known} for row in rows]
    if not isinstance(targets, Iterable):
        known = "a list of targets, a DataFrame or a path"
        raise TypeError(f"targets: expected {known}, got {type(targets).__name__}")
    return targets


def _from_mapping(item: Mapping, where: str) -> Target | Margins:
    kind = Margins if "by" in item else Target
    known = [field.name for field in fields(kind)]
    for key in item:
        if key not in known:
            raise ValueError(f"targets: {where} has an unknown field {key!r}{near(str(key), known)}")
    needed = ("by", "totals") if kind is Margins else ("measure", "value")
    for key in needed:
        if key not in item:
            raise ValueError(f"targets: {where} has no {key}")
    given = {key: entry for key, entry in item.items() if key in needed or not missing(entry)}
    return kind(**given)


def _wanted(target: Target, where: str, cell: tuple[Condition, ...] = ()) -> Wanted:
    measure = None if missing(target.measure) else target.measure
    if measure is None:
        raise ValueError(f"targets: {where} has no measure; 1 counts records")
    counts = not isinstance(measure, bool) and (measure == 1 or str(measure).strip() == COUNT)
    if not counts and not isinstance(measure, str):
        raise TypeError(f"targets: measure of {where}: expected a column or 1, got {measure!r}")
    measure = None if counts else measure.strip()
    text = "" if missing(target.filter) else target.filter
    name = target.name
    if missing(name):
        shown = text.strip() if isinstance(text, str) else ""
        name = (measure or "count") + (f" [{shown}]" if shown else "")
    name = str(name)
    try:
        conditions = parse_filter(text) + cell
    except (ValueError, TypeError) as error:
        raise type(error)(f"targets: {name}: {error}") from None
    numbers = {
        "value": number_of(target.value, name, "value"),
        "weight": number_of(target.weight, name, "weight", least=0),
        "scale": number_of(target.scale, name, "scale"),
        "tolerance": number_of(target.tolerance, name, "tolerance", least=0),
    }
    if numbers["value"] is None:
        raise ValueError(f"targets: {name}: expected a value, got none")
    if numbers["scale"] == 0:
        raise ValueError(f"targets: {name}: scale: expected a number other than 0, got 0")
    group = None if missing(target.group) else str(target.group)
    shown = " and ".join([*([text.strip()] if text.strip() else []), *map(str, cell)])
    # Equal first: they are looked up, the others then look at what is left.
    ordered = tuple(sorted(conditions, key=lambda condition: condition.operator != "=="))
    return Wanted(name, measure, ordered, shown, group=group, **numbers)


def number_of(entry, name: str, what: str, least: float | None = None) -> float | None:
    """A finite number, None where the field is missing; errors name the target and the field."""
    if missing(entry):
        return None
    try:
        number = float(entry)
    except (TypeError, ValueError):
        raise ValueError(f"targets: {name}: {what}: expected a number, got {entry!r}") from None
    if not math.isfinite(number) or (least is not None and number < least):
        limit = "" if least is None else f" of at least {least:g}"
        raise ValueError(f"targets: {name}: {what}: expected a finite number{limit}, got {number:g}")
    return number


def _cells(margins: Margins, where: str) -> list[Wanted]:
    by = [margins.by] if isinstance(margins.by, str) else list(margins.by)
    if not by:
        raise ValueError(f"targets: {where}: by: expected at least one column, got none")
    if not (isinstance(margins.totals, str | Path) or is_frame(margins.totals)):
        came = type(margins.totals).__name__
        raise TypeError(f"targets: {where}: totals: expected a DataFrame or a path, got {came}")
    rows = table_rows(margins.totals, f"targets: {where}: totals")
    check_columns(rows, [*by, margins.value], margins.totals)
    start = margins.name or ("count" if str(margins.measure).strip() == COUNT else str(margins.measure))
    target = Target(
        *(margins.measure, math.nan, margins.filter, None, margins.group),
        *(margins.weight, margins.scale, margins.tolerance),
    )
    from_text = not is_frame(margins.totals) and Path(margins.totals).suffix.lower() == ".csv"
    cells = []
    for number, row in enumerate(rows, start=1):
        conditions = []
        for column in by:
            if missing(row[column]):
                raise ValueError(f"targets: {where}: no {column} in row {number} of the totals")
            conditions += _cell_conditions(column, plain(row[column]), from_text)
        label = "/".join([start, *(f"{column}={row[column]}" for column in by)])
        cells.append(_wanted(replace(target, value=row[margins.value], name=label), label, tuple(conditions)))
    return cells


def _cell_conditions(column: str, cell, from_text: bool) -> list["CellCondition"]:
    """Equality, or for an interval of pandas (pd.cut) its two ends; an infinite end is none."""
    if not (hasattr(cell, "closed") and hasattr(cell, "left")):
        return [CellCondition(column, "==", (cell,), from_text=from_text)]
    low = ">=" if cell.closed in ("left", "both") else ">"
    high = "<=" if cell.closed in ("right", "both") else "<"
    ends = ((low, plain(cell.left)), (high, plain(cell.right)))
    return [CellCondition(column, operator, (end,)) for operator, end in ends if math.isfinite(end)]


@dataclass(frozen=True)
class CellCondition(Condition):
    """A cell of a margins table. Its value comes from a field of a CSV file (from_text) or has a type of its own."""

    from_text: bool = False

    def __str__(self) -> str:
        return super().__str__()
