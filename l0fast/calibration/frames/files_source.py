"""Records in a CSV file, or in a folder of parquet files, which may be partitioned by columns (``state=CA/...``)."""

from collections.abc import Iterator
from pathlib import Path

from .source import optional_library


class FilesSource:
    """Files in the order of their paths: only the columns that are needed, a few batches in memory at a time."""

    def __init__(self, path: Path):
        dataset, arrow = optional_library("pyarrow.dataset"), optional_library("pyarrow")
        files = [str(path)]
        if path.is_dir():
            # The same order on every machine: ids aside, it is what numbers the records.
            files = sorted(str(file) for file in path.rglob("*.parquet"))
            if not files:
                raise ValueError(f"data: expected parquet files in the folder {path}, got none")
        else:
            open(path, "rb").close()
        base = str(path) if path.is_dir() else None
        partitions = dataset.partitioning(flavor="hive") if path.is_dir() else None
        options = {"partitioning": partitions, "partition_base_dir": base} if path.is_dir() else {}
        try:
            self._data = dataset.dataset(files, format="parquet" if path.is_dir() else "csv", **options)
        except (OSError, arrow.ArrowException) as error:
            raise ValueError(f"data: cannot read {path}: {_first_line(error)}") from None
        self.path, self.names, self._columns = path, list(self._data.schema.names), []

    def types(self, columns: list[str]) -> dict:
        self._columns = columns
        return {name: self._data.schema.field(name).type for name in columns}

    @property
    def n_records(self) -> int:
        return self._read(self._data.count_rows)

    def chunks(self, rows: int) -> Iterator:
        arrow = optional_library("pyarrow")
        if not self._columns:
            for start in range(0, n := self.n_records, rows):
                yield arrow.table({"": arrow.nulls(min(rows, n - start))})
            return
        scan = {"columns": self._columns, "batch_size": rows, "batch_readahead": 1, "fragment_readahead": 1}
        batches = self._data.to_batches(**scan, use_threads=False)
        while (batch := self._read(lambda: next(batches, None))) is not None:
            if batch.num_rows:
                yield arrow.Table.from_batches([batch])

    def _read(self, work):
        arrow = optional_library("pyarrow")
        try:
            return work()
        except (OSError, arrow.ArrowException) as error:
            raise ValueError(f"data: cannot read {self.path}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
