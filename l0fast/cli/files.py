"""Reads what the command line is given: matrix, targets, initial weights. Every failure is one line by name."""

import csv
import gzip
import hashlib
import importlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.io
import scipy.sparse as sp

OPTIONAL_COLUMNS = ("weight", "scale", "tolerance")

# What numpy, scipy and the standard library raise on damaged files, each for its own kind of damage.
_DAMAGED = (ValueError, KeyError, EOFError, TypeError, IndexError, OverflowError, NotImplementedError)
_DAMAGED += (zipfile.BadZipFile, zlib.error)


class InputError(Exception):
    """Something the user gave is wrong. The message is one line; the command ends with exit code 2."""


@dataclass(frozen=True)
class Targets:
    """The targets file: columns [n_targets]; None where the file does not have the column."""

    names: list[str]
    values: np.ndarray
    weight: np.ndarray | None = None
    scale: np.ndarray | None = None
    tolerance: np.ndarray | None = None
    groups: np.ndarray | None = None
    """Labels as strings, so that --group-multiplier can name them."""
    ignored: tuple[str, ...] = ()
    """Columns of the file that mean nothing here."""


def optional_module(name: str, extra: str, purpose: str) -> ModuleType:
    """Imports an optional library, or says how to get it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{purpose} needs {name.split('.')[0]} ({error}): pip install 'l0fast[{extra}]'") from None


def file_sha256(path) -> str:
    """Hex digest of a file's bytes; of a folder, of its files' names and bytes."""
    digest, path = hashlib.sha256(), Path(path)
    for part in sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
        if part != path:
            digest.update(f"{part.relative_to(path).as_posix()}\0".encode())
        with open(part, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def check_readable(argument: str, path) -> Path:
    """The path, if a file is there that can be opened."""
    path = Path(path)
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise InputError(f"{argument}: cannot read {path}: {error.strerror or error}") from None


def read_matrix(path) -> sp.sparray:
    """A sparse matrix [n_targets, n_records] from scipy's .npz (any format) or Matrix Market (.mtx, .mtx.gz).

    An .npz with ``data, indices, indptr, shape`` and without scipy's ``format`` is taken as compressed rows. Never
    unpickles anything.

    Raises:
        InputError: unreadable, damaged, complex, empty or of another kind.
    """
    path = check_readable("MATRIX", path)
    name = path.name.lower()
    if not name.endswith((".npz", ".mtx", ".mtx.gz")):
        raise InputError(f"MATRIX: expected a .npz, .mtx or .mtx.gz file, got {path}")
    try:
        M = _read_npz(path) if name.endswith(".npz") else _read_matrix_market(path)
    except (*_DAMAGED, OSError) as error:
        raise InputError(f"MATRIX: {path} is damaged or not a sparse matrix: {_one_line(error)}") from None
    if M.dtype.kind not in "biuf":
        raise InputError(f"MATRIX: expected real numbers, got dtype {M.dtype} in {path}")
    if M.dtype.kind != "f":
        M = M.astype(np.float32 if M.dtype.itemsize <= 2 else np.float64)
    if 0 in M.shape:
        raise InputError(f"MATRIX: expected at least one target and one record, got shape {M.shape} in {path}")
    return M


def _read_npz(path: Path) -> sp.sparray:
    with np.load(path, allow_pickle=False) as file:
        plain = "format" not in file.files
        if plain:
            missing = [key for key in ("data", "indices", "indptr", "shape") if key not in file.files]
            if missing:
                raise ValueError(f"no array named {missing[0]}, found {', '.join(file.files) or 'nothing'}")
            arrays = {key: file[key] for key in ("data", "indices", "indptr", "shape")}
    if plain:
        shape = tuple(int(x) for x in arrays["shape"])
        M = sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    else:
        M = sp.load_npz(path)  # allow_pickle=False is its own default
        M = sp.csc_array(M) if M.format == "csc" else sp.csr_array(M)
    M.check_format(full_check=True)  # an index out of range would crash compiled code later
    return M


def _read_matrix_market(path: Path) -> sp.sparray:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        return sp.csr_array(scipy.io.mmread(file))


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def read_columns(argument: str, path) -> dict[str, list]:
    """All columns of a CSV (standard library only) or parquet file, by name; text from a CSV, values from parquet."""
    path = check_readable(argument, path)
    if path.suffix.lower() == ".parquet":
        parquet = optional_module("pyarrow.parquet", "data", f"{argument}: reading {path.name}")
        try:
            return parquet.read_table(path).to_pydict()
        except Exception as error:  # pyarrow has a family of its own
            raise InputError(f"{argument}: {path} is damaged or not parquet: {_one_line(error)}") from None
    if path.suffix.lower() != ".csv":
        raise InputError(f"{argument}: expected a .csv or .parquet file, got {path}")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{argument}: {path} is not a CSV file in UTF-8: {_one_line(error)}") from None
    if not rows:
        raise InputError(f"{argument}: expected a header line, got an empty file {path}")
    header = [title.strip() for title in rows[0]]
    if len(set(header)) != len(header):
        raise InputError(f"{argument}: expected distinct column names, got {', '.join(header)} in {path}")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise InputError(f"{argument}: expected {len(header)} fields, got {len(row)} in row {number} of {path}")
    return {title: [row[k] for row in rows[1:]] for k, title in enumerate(header)}


def read_targets(path) -> Targets:
    """The targets: columns ``name,value`` and optionally ``weight,scale,tolerance,group``; others are ignored.

    Raises:
        InputError: unreadable, a missing column, no rows, or something that is not a number.
    """
    columns = read_columns("--targets", path)
    for column in ("name", "value"):
        if column not in columns:
            found = ", ".join(map(str, columns)) or "none"
            raise InputError(f"--targets: expected columns name and value, got {found} in {path}")
    if not columns["value"]:
        raise InputError(f"--targets: expected at least one target, got none in {path}")
    names = [str(name) for name in columns["name"]]
    numbers = {
        column: _numbers(f"--targets: column {column}", columns[column], path)
        for column in ("value", *OPTIONAL_COLUMNS)
        if column in columns
    }
    groups = np.array([str(label) for label in columns["group"]]) if "group" in columns else None
    known = {"name", "value", "group", *OPTIONAL_COLUMNS}
    ignored = tuple(str(column) for column in columns if column not in known)
    return Targets(names, numbers.pop("value"), groups=groups, ignored=ignored, **numbers)


def _numbers(what: str, column: list, path) -> np.ndarray:
    """A column as float64. An empty field is an error: a number left out by accident must not become a target."""
    values = np.empty(len(column))
    for k, entry in enumerate(column):
        try:
            values[k] = float(entry)
        except (TypeError, ValueError):
            raise InputError(f"{what}: expected a number, got {entry!r} in row {k + 1} of {path}") from None
    return values


def init_weights_path(source: str) -> str:
    """The file in ``file.npy`` or ``file.csv:column``."""
    return source if source.lower().endswith(".npy") else source.rpartition(":")[0]


def read_initial_weights(source: str, n_records: int) -> np.ndarray:
    """Initial weights [n_records] float64 from ``file.npy`` or ``file.csv:column`` (or ``file.parquet:column``).

    Raises:
        InputError: unreadable, of another length, or not numbers.
    """
    if source.lower().endswith(".npy"):
        path = check_readable("--init-weights", source)
        try:
            weights = np.load(path, allow_pickle=False)
        except (*_DAMAGED, OSError) as error:
            raise InputError(f"--init-weights: {path} is damaged or not an array: {_one_line(error)}") from None
        if weights.dtype.kind not in "biuf":
            raise InputError(f"--init-weights: expected real numbers, got dtype {weights.dtype} in {path}")
        weights = weights.astype(np.float64)
    else:
        path, separator, column = source.rpartition(":")
        if not separator:
            raise InputError(f"--init-weights: expected file.npy or file.csv:column, got {source}")
        columns = read_columns("--init-weights", path)
        if column not in columns:
            raise InputError(f"--init-weights: expected a column {column}, got {', '.join(columns)} in {path}")
        weights = _numbers(f"--init-weights: column {column}", columns[column], path)
    if weights.shape != (n_records,):
        raise InputError(
            f"--init-weights: expected {n_records:,} values, one for each column of the matrix, "
            f"got shape {weights.shape} in {path}"
        )
    return weights
