"""Margins in the layout of SAS' Calmar macro and R's icarus: a line for each variable, its totals side by side."""

from collections.abc import Iterable, Mapping

from .build import Chunk
from .source import NUMBER, OTHER, TextColumn, kind_of, near, open_source
from .tables import missing
from .targets import Margins, Target, number_of


def calmar_margins(
    margins: Iterable,
    df,
    *,
    levels: Mapping[str, list] | None = None,
    percent: bool = False,
    total: float | None = None,
) -> list[Target | Margins]:
    """Targets for :meth:`.problem.CalibrationProblem.from_frame` from lines ``(variable, n, total_1, ..., total_n)``.

    n = 0 marks a variable of amounts, with one total; else it has n categories, whose totals stand in the order of the
    categories: numbers increasing, text in alphabetical order. Zeros (or nothing) fill up shorter lines. Each variable
    becomes a group.

    Args:
        margins: the lines: lists, the rows of an array, or a DataFrame in that order of columns.
        df: the records, as from_frame takes them; a file is read once for its categories.
        levels: the categories of a variable in the order of its totals, where they cannot be told: text whose
            alphabetical order depends on the language (capitals beside small letters, accents).
        percent: the totals of categories are shares (of 1) of ``total`` records.
        total: number of records in the population, with percent.

    Raises:
        TypeError, ValueError: a line that is not one, an unknown variable, another number of categories than the
            records have, filling that is not 0, an order that cannot be told: with the variable.
    """
    if percent != (total is not None):
        raise ValueError("total: expected the size of the population with percent=True, and only then")
    lines = margins.itertuples(index=False, name=None) if hasattr(margins, "itertuples") else margins
    parsed = [_line(list(line), number) for number, line in enumerate(lines, start=1)]
    source, levels = open_source(df), dict(levels or {})
    for name, _, _ in parsed:
        if name not in source.names:
            raise ValueError(f"margins: no column {name!r} in the data{near(name, source.names)}")
    categories = [name for name, count, _ in parsed if count]
    found = _levels(source, [name for name in source.names if name in categories and name not in levels])
    result = []
    for name, count, totals in parsed:
        if count == 0:
            result.append(Target(name, totals[0], name=name, group=name))
            continue
        known = levels[name] if name in levels else found[name]
        if len(known) != count:
            raise ValueError(f"margins: {name}: expected {len(known)} totals, one for each category, got {count}")
        for level, value in zip(known, totals, strict=True):
            text = "'" + level.replace("'", "''") + "'" if isinstance(level, str) else repr(level)
            share = value * total if percent else value
            result.append(Target(1, share, f"`{name}` == {text}", f"{name}={level}", name))
    return result


def _line(line: list, number: int) -> tuple[str, int, list[float]]:
    """Variable, number of categories, totals."""
    if len(line) < 3 or not isinstance(line[0], str):
        raise ValueError(f"margins: expected (variable, number of categories, totals ...), got {line} as line {number}")
    name, count, *entries = line
    name = name.strip()
    count = number_of(count, name, "number of categories", least=0)
    values = [number_of(entry, name, "total") for entry in entries if not missing(entry)]
    if count is None or count != int(count):
        raise ValueError(f"margins: {name}: expected a whole number of categories, got {line[1]!r}")
    size = max(int(count), 1)
    if len(values) < size or any(values[size:]):
        extra = "" if len(values) < size else f", and zeros behind them: {values[size:]}"
        raise ValueError(f"margins: {name}: expected {size} totals, got {min(len(values), size)}{extra}")
    return name, int(count), values[:size]


def _levels(source, columns: list[str]) -> dict[str, list]:
    """The distinct values of each column, in the order of their totals."""
    kinds = {name: kind_of(type_) for name, type_ in source.types(columns).items()}
    for name, kind in kinds.items():
        if kind == OTHER:
            raise TypeError(f"margins: {name}: expected a column of numbers or text")
    seen = {name: set() for name in columns}
    for table in source.chunks(1 << 18) if columns else ():
        chunk = Chunk(table, kinds)
        for name in columns:
            column = chunk.column(name)
            values = column.known if isinstance(column, TextColumn) else set(column[column == column].tolist())
            seen[name].update(values)
    return {name: _ordered(name, values, kinds[name]) for name, values in seen.items()}


def _ordered(name: str, values: set, kind: str) -> list:
    order = sorted(values)
    if kind != NUMBER and (not all(map(str.isalnum, order)) or not all(map(str.isascii, order)) or _cases_mix(order)):
        shown = ", ".join(map(repr, order[:5]))
        raise ValueError(f"margins: {name}: the order of its categories ({shown}) depends on the language; give levels")
    return order


def _cases_mix(order: list[str]) -> bool:
    return order != sorted(order, key=str.casefold)
