"""The rows of a table that a user has written: a DataFrame, a CSV or a parquet file."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from .source import optional_library


def is_frame(data) -> bool:
    return hasattr(data, "iloc") and hasattr(data, "columns")


def table_rows(table, argument: str) -> list[dict]:
    """A table's rows as dicts; a CSV's fields are text."""
    if is_frame(table):
        names = [str(name) for name in table.columns]
        return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False, name=None)]
    path = Path(table)
    if path.suffix.lower() == ".parquet":
        parquet, arrow = optional_library("pyarrow.parquet"), optional_library("pyarrow")
        open(path, "rb").close()
        try:
            return parquet.read_table(path).to_pylist()
        except (OSError, arrow.ArrowException) as error:
            why = str(error).splitlines()[0]
            raise ValueError(f"{argument}: {path} is damaged or not parquet: {why}") from None
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


def check_columns(rows: list[dict], needed: Iterable[str], where) -> None:
    for name in needed:
        if rows and name not in rows[0]:
            place = f" of {where}" if isinstance(where, str | Path) else ""
            raise ValueError(f"targets: no column {name!r}{place}; found {', '.join(rows[0])}")


def missing(entry) -> bool:
    """None, NaN, pandas' NA, and the empty text of a CSV field."""
    if entry is None or (isinstance(entry, str) and not entry.strip()):
        return True
    return type(entry).__name__ == "NAType" or (isinstance(entry, float) and math.isnan(entry))


def plain(value):
    """The Python value of a NumPy scalar."""
    return value.item() if hasattr(value, "item") else value
