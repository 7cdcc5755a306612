"""What is wrong with targets and records together, said by name."""

import numpy as np

from .build import Found
from .source import NUMBER, TEXT, optional_library
from .targets import Wanted

_SHOWN = 5


def check_kinds(targets: list[Wanted], kinds: dict[str, str], types: dict) -> None:
    """That measures are numbers, and that numbers are compared with numbers and text with text.

    Raises:
        TypeError: with the target, the column and the position in the filter.
    """
    for target in targets:
        if target.measure is not None and kinds[target.measure] != NUMBER:
            kind = types[target.measure]
            raise TypeError(f"targets: {target.name}: measure {target.measure}: expected numbers, got a {kind} column")
        for condition in target.conditions:
            kind, column = kinds[condition.column], condition.column
            at = "" if condition.position is None else f" at position {condition.position}"
            where = f"targets: {target.name}: filter: {column}{at} of {target.filter}"
            if kind not in (NUMBER, TEXT):
                raise TypeError(f"{where}: expected a column of numbers or text, got {types[column]}")
            if kind == TEXT and condition.operator in ("<", "<=", ">", ">="):
                raise TypeError(f"{where}: {condition.operator} compares numbers, but {column} is text")
            for value in condition.values:
                if isinstance(value, str) != (kind == TEXT):
                    what = "text" if kind == TEXT else "numbers"
                    raise TypeError(f"{where}: {column} holds {what}, it cannot be compared with {value!r}")


def _shown(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else "")


def check_measures(wanted: list[Wanted], found: Found) -> None:
    """Raises ValueError where a measure has no usable number on records that count, with how many."""
    rows = np.flatnonzero(found.missing)
    if rows.size:
        shown = _shown([f"{wanted[j].name} ({wanted[j].measure}: {found.missing[j]:,})" for j in rows])
        raise ValueError(
            f"targets: a measure is missing, not finite or beyond the matrix's range on records that count: {shown}"
        )


def check_reach(wanted: list[Wanted], found: Found) -> tuple[str, ...]:
    """Names of the targets of 0 with an empty row; raises ValueError where another target has one, with the reason."""
    empty = np.flatnonzero(found.entries == 0)
    culprits = []
    for j in empty:
        target = wanted[j]
        if target.value != 0:
            met = found.met[j]
            why = f"no record meets {target.filter or 'it'}" if met == 0 else f"{target.measure} is 0 on all {met:,}"
            culprits.append(f"{target.name} ({why})")
    if culprits:
        raise ValueError(f"targets: no record counts towards {_shown(culprits)}")
    return tuple(wanted[j].name for j in empty)


def check_weights(column: str | None, weights: np.ndarray) -> None:
    """Raises ValueError where an initial weight is missing, infinite or negative, with the first row."""
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise ValueError(
            f"weight: expected finite values of at least 0, got {weights[bad[0]]:g} in row {bad[0]} of column {column}"
            f" ({bad.size:,} such)"
        )


def checked_ids(column: str | None, parts: list, n_records: int, first: int = 0):
    """The ids in one pyarrow array, distinct and without gaps, or ValueError; the numbers from first on if none."""
    arrow = optional_library("pyarrow")
    if column is None:
        return arrow.chunked_array([np.arange(first, first + n_records)])
    ids = arrow.chunked_array([chunk for part in parts for chunk in part.chunks])
    if ids.null_count:
        raise ValueError(f"id: expected a value in every row, got {ids.null_count:,} missing in column {column}")
    if (example := _repeated(ids)) is not None:
        raise ValueError(f"id: expected distinct values, got {example!r} more than once in column {column}")
    return ids


def _repeated(ids):
    """A value that is there twice, or None."""
    if optional_library("pyarrow").types.is_integer(
        ids.type
    ):  # a sorted copy is small beside the hash table of value_counts
        values = np.sort(ids.to_numpy())
        again = np.flatnonzero(values[1:] == values[:-1])
        return values[again[0]].item() if again.size else None
    counts = ids.value_counts()
    again = np.flatnonzero(counts.field("counts").to_numpy() > 1)
    return counts.field("values")[int(again[0])].as_py() if again.size else None
