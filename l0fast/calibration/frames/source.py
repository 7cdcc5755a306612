"""Where the records come from: a pandas DataFrame, a pyarrow Table or a parquet file, read in chunks."""

import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NUMBER, TEXT, OTHER = "numbers", "text", "other"


def optional_library(name: str):
    """pandas or pyarrow, or how to get them.

    Raises:
        ImportError: not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"data frames need {name.split('.')[0]} ({error}): pip install 'l0fast[data]'") from None


@dataclass(frozen=True)
class TextColumn:
    """A column of text: value k of the records is ``known``'s key of ``codes[k]``."""

    codes: np.ndarray
    """[n] int32, -1 where missing."""
    known: dict[str, int]


class TableSource:
    """A frame or table in memory."""

    def __init__(self, names: list[str], take):
        self.names, self._take, self._table = names, take, None

    def types(self, columns: list[str]) -> dict:
        """The arrow type of each column; to be called once, before :meth:`chunks`."""
        self._table = self._take(columns)
        return {name: self._table.schema.field(name).type for name in columns}

    @property
    def n_records(self) -> int:
        return self._table.num_rows

    def chunks(self, rows: int) -> Iterator:
        for start in range(0, self._table.num_rows, rows):
            yield self._table.slice(start, rows)


class ParquetSource:
    """A file: only the columns that are needed, one batch in memory at a time."""

    def __init__(self, path: Path):
        parquet, arrow = optional_library("pyarrow.parquet"), optional_library("pyarrow")
        try:
            open(path, "rb").close()
        except OSError as error:
            raise OSError(f"data: cannot read {path}: {error.strerror or error}") from None
        try:
            # memory_map would count the whole file against a limit of the address space
            self._file = parquet.ParquetFile(path, memory_map=False)
        except (OSError, arrow.ArrowException) as error:
            raise ValueError(f"data: {path} is damaged or not parquet: {str(error).splitlines()[0]}") from None
        self.path, self.names, self._columns = path, list(self._file.schema_arrow.names), []

    def types(self, columns: list[str]) -> dict:
        self._columns = columns
        return {name: self._file.schema_arrow.field(name).type for name in columns}

    @property
    def n_records(self) -> int:
        return self._file.metadata.num_rows

    def chunks(self, rows: int) -> Iterator:
        arrow = optional_library("pyarrow")
        if not self._columns:  # counts of everything need no column, and arrow then yields no batch
            for start in range(0, self.n_records, rows):
                yield arrow.table({"": arrow.nulls(min(rows, self.n_records - start))})
            return
        try:
            for batch in self._file.iter_batches(rows, columns=self._columns, use_threads=False):
                yield arrow.Table.from_batches([batch])
        except (OSError, arrow.ArrowException) as error:
            raise ValueError(f"data: {self.path} is damaged: {str(error).splitlines()[0]}") from None


def open_source(data):
    """The source of a DataFrame, a Table or a path: a parquet file, a CSV file or a folder of parquet files.

    Raises:
        TypeError: something else. OSError, ValueError: a file that cannot be read, or columns of the same name.
    """
    if isinstance(data, str | Path):
        from .files_source import FilesSource

        path = Path(data)
        source = FilesSource(path) if path.is_dir() or path.suffix.lower() == ".csv" else ParquetSource(path)
    elif type(data).__module__.startswith("pandas") and hasattr(data, "iloc") and hasattr(data, "columns"):
        source = TableSource([str(name) for name in data.columns], lambda columns: _from_pandas(data, columns))
    elif type(data).__module__.startswith("pyarrow") and hasattr(data, "select"):
        table = data if hasattr(data, "combine_chunks") else optional_library("pyarrow").Table.from_batches([data])
        source = TableSource(list(table.column_names), lambda columns: _from_arrow(table, columns))
    else:
        known = "a pandas DataFrame, a pyarrow Table or a path"
        raise TypeError(f"data: expected {known}, got {type(data).__name__}")
    twice = {name for name in source.names if source.names.count(name) > 1} if _repeats(source.names) else ()
    if twice:
        raise ValueError(f"data: expected distinct column names, got {', '.join(sorted(twice))} more than once")
    return source


def _repeats(names: list[str]) -> bool:
    return len(set(names)) < len(names)


def _from_pandas(frame, columns: list[str]):
    arrow = optional_library("pyarrow")
    places = {str(name): k for k, name in enumerate(frame.columns)}
    arrays = {}
    for name in columns:
        try:
            arrays[name] = arrow.array(frame.iloc[:, places[name]], from_pandas=True)
        except arrow.ArrowException as error:
            why = str(error).splitlines()[0]
            raise TypeError(f"data: column {name}: expected numbers or text, got a mixture ({why})") from None
    return arrow.table(arrays) if arrays else arrow.table({"": arrow.nulls(len(frame))})


def _from_arrow(table, columns: list[str]):
    arrow = optional_library("pyarrow")
    return table.select(columns) if columns else arrow.table({"": arrow.nulls(table.num_rows)})


def kind_of(arrow_type) -> str:
    """NUMBER, TEXT or OTHER; a dictionary (pandas: a categorical) is what its values are."""
    t = optional_library("pyarrow").types
    if t.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if any(is_(arrow_type) for is_ in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal)):
        return NUMBER
    return TEXT if t.is_string(arrow_type) or t.is_large_string(arrow_type) or t.is_string_view(arrow_type) else OTHER


def numbers_of(column) -> np.ndarray:
    """Values [n] of a column of numbers or truth values; NaN where missing."""
    arrow = optional_library("pyarrow")
    t = column.type.value_type if arrow.types.is_dictionary(column.type) else column.type
    if arrow.types.is_boolean(t):
        t = arrow.int8()
    elif arrow.types.is_decimal(t):
        t = arrow.float64()
    return (column if column.type == t else column.cast(t)).to_numpy()


def texts_of(column) -> TextColumn:
    """A column of text by codes."""
    arrow = optional_library("pyarrow")
    encoded = column.cast(arrow.large_string()).combine_chunks().dictionary_encode()
    if hasattr(encoded, "chunks"):  # older pyarrow keeps the chunks
        encoded = encoded.unify_dictionaries().chunk(0) if encoded.num_chunks else None
    if encoded is None:
        return TextColumn(np.zeros(0, np.int32), {})
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return TextColumn(codes, {text: k for k, text in enumerate(encoded.dictionary.to_pylist())})


def near(name: str, names: list[str]) -> str:
    """'; near it: a, b' or where nothing is near, the first names."""
    if close := difflib.get_close_matches(name, names, n=3, cutoff=0.6):
        return f"; near it: {', '.join(close)}"
    folded = [other for other in names if other.lower() == name.lower()]
    if folded:
        return f"; near it: {', '.join(folded)}"
    more = ", ..." if len(names) > 8 else ""
    return f"; there are {', '.join(names[:8])}{more}" if names else "; there are no columns"
