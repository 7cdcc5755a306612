"""A calibration problem made from records in a table and targets in words."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..diagnostics import target_table
from ..matrix import PackedMatrix
from ..model import SparseCalibrationWeights
from .build import Chunk, MatrixBuilder
from .checks import check_kinds, check_measures, check_reach, check_weights, checked_ids
from .grammar import Condition
from .source import NUMBER, kind_of, near, numbers_of, open_source, optional_library
from .targets import CellCondition, Wanted, wanted_targets

CHUNK_ROWS = 1 << 18


@dataclass(frozen=True, eq=False)
class CalibrationProblem:
    """Matrix, targets and records that belong together; made by :meth:`from_frame`."""

    matrix: PackedMatrix
    """[n_targets, n_records]."""
    y: np.ndarray
    """[n_targets] float64."""
    names: list[str]
    weights: np.ndarray
    """Initial weights [n_records] float64."""
    ids: object
    """pyarrow ChunkedArray [n_records]: the column ``id``, or the numbers from 0."""
    id_name: str = "record"
    groups: np.ndarray | None = None
    """[n_targets] labels, or None."""
    target_weights: np.ndarray | None = None
    target_scales: np.ndarray | None = None
    target_tolerances: np.ndarray | None = None
    unreached: tuple[str, ...] = ()
    """Targets of value 0 that no record counts towards: always met."""

    @classmethod
    def from_frame(
        cls,
        df,
        targets,
        id: str | None = None,
        weight: str | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        chunk_rows: int = CHUNK_ROWS,
    ) -> "CalibrationProblem":
        """Row j of the matrix is target j's measure on the records that meet its filter, 0 on the others.

        A parquet file is read once, only the columns that are used, at most ``chunk_rows`` records at a time: it may
        be larger than the memory; the packed matrix (6 bytes a nonzero, 8 a record) may not.

        Args:
            df: a row for each record: pandas DataFrame, pyarrow Table, or path of a parquet file, of a CSV file, or of
                a folder of parquet files, which may be partitioned by columns (``state=CA/part-0.parquet``).
            targets: a list of :class:`.targets.Target`, :class:`.targets.Margins` and dicts, a DataFrame, or a path;
                see :func:`.targets.wanted_targets`.
            id: column of distinct values, by which results join back; None numbers the rows from 0.
            weight: column of initial weights, finite and at least 0; None for 1.
            dtype: of the matrix, torch.float32 or torch.float64.
            chunk_rows: records looked at together.

        Raises:
            TypeError: a column of the wrong kind, by target, column and position in the filter.
            ValueError: an unknown column, a filter that cannot be parsed, equal names, a missing number, a target
                other than 0 that no record counts towards, a repeated id: by name.
            ImportError: pandas or pyarrow is missing.
        """
        if isinstance(chunk_rows, bool) or not isinstance(chunk_rows, int) or chunk_rows < 1:
            raise ValueError(f"chunk_rows: expected a positive integer, got {chunk_rows!r}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
        wanted = wanted_targets(targets)
        options = _options(wanted)
        source = open_source(df)
        needed = _needed(wanted, id, weight, source.names)
        types = source.types(needed)
        kinds = {name: kind_of(type_) for name, type_ in types.items()}
        wanted = [_with_cells_typed(target, kinds) for target in wanted]
        check_kinds(wanted, kinds, types)
        if weight is not None and kinds[weight] != NUMBER:
            raise TypeError(f"weight: expected a column of numbers, got {weight} of {types[weight]}")
        if source.n_records == 0:
            raise ValueError("data: expected at least one record, got none")

        builder, weights, ids = MatrixBuilder(wanted, dtype), [], []
        for table in source.chunks(chunk_rows):
            builder.add(Chunk(table, kinds))
            if weight is not None:
                weights.append(numbers_of(table.column(weight)).astype(np.float64))
            if id is not None:
                ids.append(table.column(id))
        check_measures(wanted, builder.found)
        unreached = check_reach(wanted, builder.found)
        weights = np.concatenate(weights) if weights else np.ones(source.n_records)
        check_weights(weight, weights)
        return cls(
            matrix=builder.matrix(),
            y=np.array([target.value for target in wanted]),
            names=[target.name for target in wanted],
            weights=weights,
            ids=checked_ids(id, ids, source.n_records),
            id_name="record" if id is None else id,
            unreached=unreached,
            **options,
        )

    # -- fitting and results -----------------------------------------------------------------------------------------

    def fit_options(self) -> dict:
        """What the targets say to ``SparseCalibrationWeights.fit``: groups, weights, scales and tolerances."""
        return {
            "target_groups": self.groups,
            "target_weights": self.target_weights,
            "target_scales": self.target_scales,
            "target_tolerances": self.target_tolerances,
        }

    def fit(self, model: SparseCalibrationWeights | None = None, *, seed: int = 0, device="cpu", **options):
        """Fits a model and returns it.

        Args:
            model: of n_records weights; None makes one of the initial weights with the command line's defaults
                (beta 0.35, init_keep_prob 0.999, log_weight_jitter_sd 0.05).
            seed, device: of the model that is made.
            options: of ``SparseCalibrationWeights.fit``; by default those of the command line: lambda_l0 1e-3,
                lambda_l2 1e-12, lr 0.15, epochs 1000, loss_type 'relative'.
        """
        if model is None:
            model = SparseCalibrationWeights(
                self.matrix.n_records,
                beta=0.35,
                init_keep_prob=0.999,
                init_weights=self.weights,
                log_weight_jitter_sd=0.05,
                seed=seed,
                device=device,
            )
        defaults = {"lambda_l0": 1e-3, "lambda_l2": 1e-12, "lr": 0.15, "epochs": 1000, "loss_type": "relative"}
        return model.fit(self.matrix, self.y, **(defaults | self.fit_options() | options))

    def weights_frame(self, model, active_only: bool = False):
        """DataFrame with the id column, ``initial_weight`` and ``weight``, a row for each record in the order read.

        Args:
            model: a fitted model, or weights [n_records].
            active_only: only records of positive weight.
        """
        pandas = optional_library("pandas")
        weights = self._weights(model)
        columns = {"initial_weight": self.weights, "weight": weights}
        if self.id_name in columns:
            raise ValueError(f"id: a column {self.id_name!r} of the result would be there twice; rename it")
        frame = pandas.DataFrame({self.id_name: self.ids.to_pandas(), **columns})
        return frame[weights > 0].reset_index(drop=True) if active_only else frame

    def targets_frame(self, model):
        """DataFrame with a row for each target: total before and after, and the errors."""
        before, after = (self.matrix.to_scipy() @ w for w in (self.weights, self._weights(model)))
        table = target_table(self.names, self.y, before, after, groups=self.groups)
        return optional_library("pandas").DataFrame(table)

    def _weights(self, model) -> np.ndarray:
        if hasattr(model, "get_weights"):
            weights = model.get_weights(deterministic=True).detach().cpu().numpy()
        else:
            weights = np.asarray(model)
        if weights.shape != (self.matrix.n_records,):
            raise ValueError(f"model: expected {self.matrix.n_records} weights, got shape {weights.shape}")
        return weights.astype(np.float64)


def _needed(wanted: list[Wanted], id: str | None, weight: str | None, names: list[str]) -> list[str]:
    """Columns in the order of the table.

    Raises:
        ValueError: one that is not there, with its target.
    """
    known, used = set(names), set()

    def use(column: str, what: str) -> None:
        if column not in known:
            raise ValueError(f"{what}: no column {column!r} in the data{near(column, names)}")
        used.add(column)

    for argument, column in (("id", id), ("weight", weight)):
        if column is not None:
            use(column, argument)
    for target in wanted:
        if target.measure is not None:
            use(target.measure, f"targets: {target.name}: measure")
        for condition in target.conditions:
            at = "" if condition.position is None else f" at position {condition.position} of {target.filter}"
            use(condition.column, f"targets: {target.name}: filter{at}")
    return [name for name in names if name in used]


def _with_cells_typed(target: Wanted, kinds: dict[str, str]) -> Wanted:
    """A margins file's fields become numbers where the records' column has numbers."""
    conditions = []
    for condition in target.conditions:
        if isinstance(condition, CellCondition):
            (value,) = condition.values
            if condition.from_text and kinds[condition.column] == NUMBER:
                try:
                    value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
                except ValueError:
                    pass  # check_kinds says that numbers cannot be compared with it
            condition = Condition(condition.column, condition.operator, (value,))
        conditions.append(condition)
    return replace(target, conditions=tuple(conditions))


def _options(wanted: list[Wanted]) -> dict:
    """Vectors [n_targets], or None where no target says anything."""
    options = {}
    for key, keyword, default in (
        ("group", "groups", None),
        ("weight", "target_weights", 1.0),
        ("scale", "target_scales", None),
        ("tolerance", "target_tolerances", 0.0),
    ):
        given = [getattr(target, key) for target in wanted]
        if all(entry is None for entry in given):
            options[keyword] = None
            continue
        if default is None and None in given:
            without = wanted[given.index(None)].name
            raise ValueError(f"targets: {key}: expected one for every target or for none, {without} has none")
        options[keyword] = np.array([default if entry is None else entry for entry in given])
    return options
