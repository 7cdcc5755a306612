"""Targets as users write them: dataclasses, dicts, a DataFrame or a CSV file; margins tables become rows of them."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from .grammar import Condition, parse_filter
from .source import near, optional_library

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
    """DataFrame, or path of a CSV or parquet file, with the columns ``by`` and ``value``."""
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
    if isinstance(targets, str | Path) or _is_frame(targets):
        rows = _rows(targets, "targets")
        _check_columns(rows, ("measure", "value"), targets)
        known = {field.name for field in fields(Target)}
        return [{key: entry for key, entry in row.items() if key in known} for row in rows]
    if not isinstance(targets, Iterable):
        known = "a list of targets, a DataFrame or a path"
        raise TypeError(f"targets: expected {known}, got {type(targets).__name__}")
    return targets


def _is_frame(data) -> bool:
    return hasattr(data, "iloc") and hasattr(data, "columns")


def _rows(table, argument: str) -> list[dict]:
    """A table's rows as dicts; a CSV's fields are text."""
    if _is_frame(table):
        names = [str(name) for name in table.columns]
        return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False, name=None)]
    path = Path(table)
    if path.suffix.lower() == ".parquet":
        return _rows(optional_library("pandas").read_parquet(path), argument)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{argument}: expected a .csv or .parquet file, got {path}")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{argument}: {path} is not a CSV file in UTF-8: {error}") from None
    if not lines:
        raise ValueError(f"{argument}: expected a header line, got an empty file {path}")
    header = [title.strip() for title in lines[0]]
    if len(set(header)) < len(header):
        raise ValueError(f"{argument}: expected distinct column names, got {', '.join(header)} in {path}")
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            hint = "; a filter with a comma must stand in quotes" if len(line) > len(header) else ""
            raise ValueError(
                f"{argument}: expected {len(header)} fields, got {len(line)} in row {number} of {path}{hint}"
            )
    return [dict(zip(header, line, strict=True)) for line in lines[1:]]


def _check_columns(rows: list[dict], needed: Iterable[str], where) -> None:
    for name in needed:
        if rows and name not in rows[0]:
            place = f" of {where}" if isinstance(where, str | Path) else ""
            raise ValueError(f"targets: no column {name!r}{place}; found {', '.join(rows[0])}")


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
    given = {key: entry for key, entry in item.items() if key in needed or not _missing(entry)}
    return kind(**given)


def _missing(entry) -> bool:
    """None, NaN, pandas' NA, and the empty text of a CSV field."""
    if entry is None or (isinstance(entry, str) and not entry.strip()):
        return True
    return type(entry).__name__ == "NAType" or (isinstance(entry, float) and math.isnan(entry))


def _wanted(target: Target, where: str, cell: tuple[Condition, ...] = ()) -> Wanted:
    measure = None if _missing(target.measure) else target.measure
    if measure is None:
        raise ValueError(f"targets: {where} has no measure; 1 counts records")
    counts = not isinstance(measure, bool) and (measure == 1 or str(measure).strip() == COUNT)
    if not counts and not isinstance(measure, str):
        raise TypeError(f"targets: measure of {where}: expected a column or 1, got {measure!r}")
    measure = None if counts else measure.strip()
    text = "" if _missing(target.filter) else target.filter
    name = target.name
    if _missing(name):
        shown = text.strip() if isinstance(text, str) else ""
        name = (measure or "count") + (f" [{shown}]" if shown else "")
    name = str(name)
    try:
        conditions = parse_filter(text) + cell
    except (ValueError, TypeError) as error:
        raise type(error)(f"targets: {name}: {error}") from None
    numbers = {
        "value": _number(target.value, name, "value"),
        "weight": _number(target.weight, name, "weight", least=0),
        "scale": _number(target.scale, name, "scale"),
        "tolerance": _number(target.tolerance, name, "tolerance", least=0),
    }
    if numbers["value"] is None:
        raise ValueError(f"targets: {name}: expected a value, got none")
    if numbers["scale"] == 0:
        raise ValueError(f"targets: {name}: scale: expected a number other than 0, got 0")
    group = None if _missing(target.group) else str(target.group)
    shown = " and ".join([*([text.strip()] if text.strip() else []), *map(str, cell)])
    # Equal first: they are looked up, the others then look at what is left.
    ordered = tuple(sorted(conditions, key=lambda condition: condition.operator != "=="))
    return Wanted(name, measure, ordered, shown, group=group, **numbers)


def _number(entry, name: str, what: str, least: float | None = None) -> float | None:
    if _missing(entry):
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
    if not (isinstance(margins.totals, str | Path) or _is_frame(margins.totals)):
        came = type(margins.totals).__name__
        raise TypeError(f"targets: {where}: totals: expected a DataFrame or a path, got {came}")
    rows = _rows(margins.totals, f"targets: {where}: totals")
    _check_columns(rows, [*by, margins.value], margins.totals)
    start = margins.name or ("count" if str(margins.measure).strip() == COUNT else str(margins.measure))
    target = Target(
        *(margins.measure, math.nan, margins.filter, None, margins.group),
        *(margins.weight, margins.scale, margins.tolerance),
    )
    from_text = not _is_frame(margins.totals) and Path(margins.totals).suffix.lower() == ".csv"
    cells = []
    for number, row in enumerate(rows, start=1):
        conditions = []
        for column in by:
            if _missing(row[column]):
                raise ValueError(f"targets: {where}: no {column} in row {number} of the totals")
            conditions.append(CellCondition(column, "==", (_plain(row[column]),), from_text=from_text))
        label = "/".join([start, *(f"{column}={row[column]}" for column in by)])
        cells.append(_wanted(replace(target, value=row[margins.value], name=label), label, tuple(conditions)))
    return cells


@dataclass(frozen=True)
class CellCondition(Condition):
    """A cell of a margins table. Its value comes from a field of a CSV file (from_text) or has a type of its own."""

    from_text: bool = False

    def __str__(self) -> str:
        return super().__str__()


def _plain(value):
    """The Python value of a NumPy scalar."""
    return value.item() if hasattr(value, "item") else value
