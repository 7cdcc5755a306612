"""From records and targets to the packed matrix: chunk by chunk, every column and filter looked at once in each."""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch

from ..matrix import PackedMatrix, pack
from .grammar import Condition
from .source import TEXT, TextColumn, numbers_of, texts_of
from .targets import Wanted

_HOLDS = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Chunk:
    """Some records, with what was already found out about them."""

    def __init__(self, table, kinds: dict[str, str]):
        self.size, self._table, self._kinds = table.num_rows, table, kinds
        self._columns, self._places, self._records = {}, {}, {}

    def column(self, name: str) -> np.ndarray | TextColumn:
        if name not in self._columns:
            read = texts_of if self._kinds[name] == TEXT else numbers_of
            self._columns[name] = read(self._table.column(name))
        return self._columns[name]

    def records(self, conditions: tuple[Condition, ...]) -> np.ndarray | None:
        """Increasing places of the records that meet all conditions; None for all of them. Shared beginnings of
        filters are looked at once."""
        if not conditions:
            return None
        if conditions not in self._records:
            before, last = self.records(conditions[:-1]), conditions[-1]
            if before is None and last.operator == "==":
                found = self._equal(last)
            elif before is None:
                found = np.flatnonzero(self._holds(last, slice(None)))
            else:
                found = before[self._holds(last, before)]
            self._records[conditions] = found
        return self._records[conditions]

    def _equal(self, condition: Condition) -> np.ndarray:
        """The records with one value, from one sort of the column for all of its values."""
        name, (value,) = condition.column, condition.values
        column = self.column(name)
        values = column.codes if isinstance(column, TextColumn) else column
        if name not in self._places:
            order = np.argsort(values, kind="stable")
            known, first = np.unique(values[order], return_index=True)
            ends = [*first[1:].tolist(), values.size]
            spans = dict(zip(known.tolist(), zip(first.tolist(), ends, strict=True), strict=True))
            self._places[name] = order, spans
        order, spans = self._places[name]
        key = column.known.get(value) if isinstance(column, TextColumn) else _as_stored(value, values.dtype)
        first, end = spans.get(key, (0, 0))
        return order[first:end]

    def _holds(self, condition: Condition, places) -> np.ndarray:
        """[len(places)] bool. A missing value meets nothing."""
        column, operator = self.column(condition.column), condition.operator
        if isinstance(column, TextColumn):
            codes = column.codes[places]
            among = np.isin(codes, [column.known[v] for v in condition.values if v in column.known])
            return among if operator in ("==", "in") else ~among & (codes >= 0)
        values = column[places]
        if operator in _HOLDS:
            held = _HOLDS[operator](values, condition.values[0])
        else:
            held = np.zeros(values.shape, dtype=bool)
            for value in condition.values:
                held |= values == value
            held = held if operator == "in" else ~held
        missing_may_hold = operator in ("!=", "not in") and values.dtype.kind == "f"
        return held & ~np.isnan(values) if missing_may_hold else held


def _as_stored(value, dtype: np.dtype):
    """The constant as a float32 column would hold it: 0.1 is what a user means, not its double."""
    if dtype.kind != "f":
        return value
    with np.errstate(over="ignore"):
        return dtype.type(value).item()


@dataclass
class Found:
    """What the pass over the records adds up for each target, [n_targets]."""

    met: np.ndarray
    """Records that meet the filter."""
    entries: np.ndarray
    """Those of them whose measure is not 0."""
    missing: np.ndarray
    """Those whose measure is missing, not finite or too large for the matrix."""


@dataclass
class MatrixBuilder:
    """Takes chunks, gives the matrix."""

    targets: list[Wanted]
    dtype: torch.dtype
    found: Found = field(init=False)
    _pieces: list[PackedMatrix] = field(default_factory=list)

    def __post_init__(self):
        self.found = Found(*(np.zeros(len(self.targets), dtype=np.int64) for _ in range(3)))

    def add(self, chunk: Chunk) -> None:
        """Packs the columns of a chunk's records."""
        everything, ones = np.arange(chunk.size), np.ones(chunk.size, dtype=np.float32)
        indices, data = [], []
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        for row, target in enumerate(self.targets):
            records = chunk.records(target.conditions)
            records = everything if records is None else records
            self.found.met[row] += records.size
            if target.measure is None:
                values = ones[: records.size]
            else:
                with np.errstate(over="ignore"):
                    values = chunk.column(target.measure)[records].astype(dtype)
                bad = values.size - np.count_nonzero(np.isfinite(values))
                self.found.missing[row] += bad
                nonzero = values != 0
                values, records = values[nonzero], records[nonzero]
            self.found.entries[row] += records.size
            indices.append(records)
            data.append(values)
        if self.found.missing.any():  # the matrix will not be used: only count on
            self._pieces.clear()
            return
        indptr = np.zeros(len(self.targets) + 1, dtype=np.int64)
        np.cumsum([values.size for values in data], out=indptr[1:])
        arrays = (np.concatenate(data).astype(dtype, copy=False), np.concatenate(indices), indptr)
        rows = sp.csr_array(arrays, shape=(len(self.targets), chunk.size))
        self._pieces.append(pack(rows, dtype=self.dtype))

    def matrix(self) -> PackedMatrix:
        """All columns, in the order of the records. The pieces are given up one array after the other."""
        pieces, self._pieces = self._pieces, []
        if len(pieces) == 1:
            return pieces[0]
        n_records = sum(piece.n_records for piece in pieces)
        starts = np.cumsum([0] + [piece.nnz for piece in pieces[:-1]]).tolist()
        first = torch.zeros(1, dtype=torch.int64)
        ends = [piece.indptr[1:] + start for piece, start in zip(pieces, starts, strict=True)]
        rows, values = [piece.rows for piece in pieces], [piece.values for piece in pieces]
        pieces.clear()
        indptr = torch.cat([first, *ends])
        ends.clear()
        all_rows = torch.cat([part.view(torch.int16) if part.dtype == torch.uint16 else part for part in rows])
        if rows[0].dtype == torch.uint16:
            all_rows = all_rows.view(torch.uint16)
        rows.clear()
        return PackedMatrix(indptr, all_rows, torch.cat(values), (len(self.targets), n_records))
