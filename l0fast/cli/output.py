"""Writes what the command line leaves behind: each file atomically, and weights never lost."""

import csv
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .._atomic import atomic_write
from .files import InputError, optional_module

LOG_COLUMNS = (
    *("target_name", "estimate", "target", "epoch", "error", "rel_error", "abs_error", "rel_abs_error", "loss"),
    "achievable",
)
WEIGHT_SUFFIXES = (".npy", ".csv", ".parquet")


def say(text: str) -> None:
    """A plain line on stdout. Whoever reads it may have gone away (``| head``): the run goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")


def check_outputs(outputs: dict[str, str | None], inputs: dict[str, str | None]) -> None:
    """Says before a run what would go wrong after it: a folder that is missing or cannot be written, a file twice.

    Args:
        outputs: path of each file to write by its option; None where it was not asked for.
        inputs: path of each file to read, which none of the outputs may overwrite.

    Raises:
        InputError: with the first option at fault.
    """
    taken = {Path(path).resolve(): option for option, path in inputs.items() if path}
    for option, path in outputs.items():
        if path is None:
            continue
        path = Path(path)
        if (other := taken.setdefault(path.resolve(), option)) != option:
            raise InputError(f"{option}: {path} is the file of {other} too")
        if not path.parent.is_dir():
            raise InputError(f"{option}: no folder {path.parent} to write {path.name} to")
        if path.is_dir():
            raise InputError(f"{option}: expected a file, got the folder {path}")
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".l0fast-"):
                pass
        except OSError as error:
            raise InputError(f"{option}: cannot write to {path.parent}: {error.strerror or error}") from None


def check_weights_format(path) -> None:
    """Refuses a WEIGHTS file that could not be written at the end."""
    suffix = Path(path).suffix.lower()
    if suffix not in WEIGHT_SUFFIXES:
        raise InputError(f"--output: expected a .npy, .csv or .parquet file, got {path}")
    if suffix == ".parquet":
        optional_module("pyarrow.parquet", "data", f"--output: writing {Path(path).name}")


def weights_bytes(weights: np.ndarray, suffix: str, ids=None, id_name: str | None = None) -> bytes:
    """A weights file: .npy float32 [n_records], or columns ``record,weight`` as .csv or .parquet.

    With ids (a pyarrow array) their name and values take the place of ``record`` and the numbers from 0.
    """
    buffer = io.BytesIO()
    name = "record" if ids is None else id_name
    if suffix == ".npy":
        np.save(buffer, weights, allow_pickle=False)
    elif suffix == ".parquet":
        arrow = optional_module("pyarrow", "data", "--output")
        parquet = optional_module("pyarrow.parquet", "data", "--output")
        parquet.write_table(
            arrow.table({name: np.arange(len(weights)) if ids is None else ids, "weight": weights}), buffer
        )
    else:
        first = range(len(weights)) if ids is None else ids.to_pylist()
        buffer.write(csv_bytes((name, "weight"), zip(first, weights.tolist(), strict=True)))
    return buffer.getvalue()


def csv_bytes(header: Iterable[str], rows: Iterable) -> bytes:
    """A CSV file in UTF-8. Floats keep all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def table_bytes(table: dict[str, np.ndarray]) -> bytes:
    """A table of columns as CSV."""
    return csv_bytes(table, zip(*(column.tolist() for column in table.values()), strict=True))


def json_bytes(content) -> bytes:
    """JSON that every parser reads: NaN and infinities become null."""

    def plain(x):
        if isinstance(x, dict):
            return {str(key): plain(value) for key, value in x.items()}
        if isinstance(x, list | tuple):
            return [plain(value) for value in x]
        if isinstance(x, np.generic):
            x = x.item()
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode()


def save_weights(path, weights: np.ndarray, ids=None, id_name: str | None = None) -> None:
    """Writes WEIGHTS; where that fails, the weights go to the folder for temporary files and the error says so.

    Raises:
        InputError: they are not at ``path``.
    """
    try:
        atomic_write(path, weights_bytes(weights, Path(path).suffix.lower(), ids, id_name))
    except (OSError, MemoryError) as error:
        reason = f"--output: cannot write {path}: {getattr(error, 'strerror', None) or error}"
        raise InputError(f"{reason}; {rescue_weights(weights)}") from None


def rescue_weights(weights: np.ndarray) -> str:
    """Writes weights to the folder for temporary files and says where, or why not."""
    try:
        handle, path = tempfile.mkstemp(prefix="l0fast-weights-", suffix=".npy")
        with os.fdopen(handle, "wb") as file:
            np.save(file, weights, allow_pickle=False)
    except OSError as error:
        return f"nor could they be saved in {tempfile.gettempdir()}: {error.strerror or error}"
    return f"the weights are in {path}"


def write_output(option: str, path, content: bytes) -> None:
    """Writes one of the other files.

    Raises:
        InputError: it cannot be written.
    """
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(f"{option}: cannot write {path}: {error.strerror or error}") from None


class TargetLog:
    """The --log file: every target at every look, appended so that a killed run leaves whole lines.

    ``error = estimate - target``, ``rel_error`` is that of diagnostics.relative_errors, ``loss = rel_error^2``: a
    target's own, comparable between targets and between loss types.
    """

    def __init__(self, path, names, targets, achievable, keep_until: int | None = None):
        """``keep_until``: in a resumed run, lines of the old log up to that epoch stay; None starts a new file."""
        self.path, self.failure = Path(path), None
        self.names, self.targets = names, targets
        self.achievable = [bool(x) for x in achievable]
        kept = [] if keep_until is None or not self.path.exists() else self._lines_until(keep_until)
        write_output("--log", self.path, csv_bytes(LOG_COLUMNS, kept))

    def _lines_until(self, epoch: int) -> list[list[str]]:
        with open(self.path, newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.reader(file))
        if not rows or tuple(rows[0]) != LOG_COLUMNS:
            raise InputError(f"--log: {self.path} is not a log of l0fast, it cannot be continued")
        place = LOG_COLUMNS.index("epoch")
        # A kill in mid-write can leave a last line that is short, or cut within its last field.
        whole = [row for row in rows[1:] if len(row) == len(LOG_COLUMNS) and row[-1] in ("True", "False")]
        return [row for row in whole if int(row[place]) <= epoch]

    def append(self, epoch: int, estimates: np.ndarray, relative: np.ndarray) -> None:
        """Adds one line for each target in a single write. A failure is kept for the end: the run is worth more."""
        if self.failure is not None:
            return
        error = estimates - self.targets
        columns = (estimates, self.targets, [epoch] * len(error), error, relative, np.abs(error), np.abs(relative))
        lists = [column if isinstance(column, list) else column.tolist() for column in (*columns, relative**2)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(zip(self.names, *lists, self.achievable, strict=True))
        try:
            with open(self.path, "ab") as file:
                file.write(text.getvalue().encode())
        except OSError as failure:
            self.failure = failure
