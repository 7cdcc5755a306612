"""What can be known about a calibration problem before it runs: culprits by name, memory and time.

Each ``_..._findings`` function looks for one kind of trouble; row_facts.py goes over the nonzeros once for all of them.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from .. import _load
from .memory import matrix_bytes
from .row_facts import RowFacts, achievable, canonical, row_facts

_SHOWN = 5  # culprits named in a message; Finding.rows has them all

_SECONDS_PER_NONZERO = 0.7e-9
"""Both passes over one nonzero, all gates open: 0.5 to 0.9 ns on 2 cores (benchmarks/results/calibration.csv)."""
_SECONDS_PER_RECORD = 5e-9
"""Noise, exp and two Adam steps of one record, same machine."""
_FALLBACK_FACTOR = 30
"""How much slower plain torch is where the kernels are missing."""


@dataclass(frozen=True)
class Finding:
    """One thing that the preflight noticed."""

    level: str
    """'error' (the run could not succeed), 'warning' or 'info'."""
    code: str
    """A stable word for programs: 'empty-row', 'unreachable-sign', ..."""
    message: str
    """One line, with the first culprits by name."""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """All culprits: indices of targets (of records where the code is about columns or initial weights)."""

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


@dataclass(frozen=True)
class PreflightReport:
    """The findings, worst first, and the estimates."""

    findings: list[Finding]
    achievable: np.ndarray
    """[n_targets] bool: whether some non-negative weights meet the target, each target taken alone."""
    bytes_matrix: int
    bytes_state: int
    bytes_totals: int
    seconds: float
    """Estimated for all epochs with every gate open; closed gates make it less."""

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def bytes_total(self) -> int:
        return self.bytes_matrix + self.bytes_state + self.bytes_totals


def preflight(
    M,
    y,
    names=None,
    *,
    loss_type: str = "relative",
    epochs: int = 1000,
    init_weights=None,
    target_weights=None,
    target_scales=None,
    target_tolerances=None,
    compiled: bool = True,
) -> PreflightReport:
    """Looks at a calibration problem and says what will go wrong, what may, and what it will cost.

    Args:
        M: scipy sparse matrix [n_targets, n_records].
        y: [n_targets] targets.
        names: [n_targets] strings for the messages; None: "target 0", ...
        loss_type: as in fit(); 'relative' cannot take a target of -1.
        epochs: for the estimated time.
        init_weights: [n_records] or None.
        target_weights, target_scales, target_tolerances: [n_targets] or None.
        compiled: whether the kernels are there, for the estimated time.

    Returns:
        A :class:`PreflightReport`.

    Raises:
        TypeError: M is not a scipy sparse matrix.
        ValueError: a vector whose length does not fit M, or an empty matrix.
    """
    M = canonical(M)
    if 0 in M.shape:
        raise ValueError(f"matrix: expected at least one target and one record, got shape {M.shape}")
    options = {"weights": target_weights, "scales": target_scales, "tolerances": target_tolerances}
    return examine(row_facts(M), int(M.nnz), y, names, loss_type, epochs, init_weights, options, compiled)


def examine(
    facts: RowFacts, nnz: int, y, names, loss_type: str, epochs: int, init_weights, options: dict, compiled: bool
) -> PreflightReport:
    """:func:`preflight` of a matrix of which the facts are known already, with nnz nonzeros.

    options: its target_weights, target_scales and target_tolerances, as weights, scales and tolerances.
    """
    n_targets, n_records = len(facts.nonzeros), len(facts.used)
    y = _fitting("targets", y, n_targets)
    names = [f"target {j}" for j in range(n_targets)] if names is None else names
    if len(names) != n_targets:
        raise ValueError(f"names: expected {n_targets} names, one for each row of the matrix, got {len(names)}")
    reachable = achievable(facts, y)
    findings = [
        *_value_findings(facts, y, names, init_weights, options),
        *_loss_findings(y, names, loss_type, options["scales"]),
        *_reach_findings(facts, y, names, reachable),
        *_duplicate_findings(facts, y, names),
        *_column_findings(facts),
    ]
    order = {"error": 0, "warning": 1, "info": 2}
    rate = nnz * _SECONDS_PER_NONZERO + n_records * _SECONDS_PER_RECORD
    return PreflightReport(
        findings=sorted(findings, key=lambda finding: order[finding.level]),
        achievable=reachable,
        bytes_matrix=matrix_bytes(nnz, n_records, n_targets),
        bytes_state=n_records * 4 * 8,  # two parameters, four moments, gates, initial weights
        bytes_totals=_private_totals(nnz, n_records, n_targets) * n_targets * 8,
        seconds=epochs * rate * (1 if compiled else _FALLBACK_FACTOR),
    )


def _private_totals(nnz: int, n_records: int, n_targets: int) -> int:
    """Copies of the totals that an epoch sums into; plain torch needs one."""
    return 1 if _load.native_error() else torch.ops.l0fast.count_parts(nnz, n_records, n_targets)


def _fitting(name: str, x, length: int) -> np.ndarray:
    array = np.asarray(x, dtype=np.float64)
    if array.shape != (length,):
        raise ValueError(f"{name}: expected {length} values to fit the matrix, got shape {array.shape}")
    return array


def _shown(items) -> str:
    """The first culprits and how many more there are."""
    items = list(items)
    more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _values_shown(rows, names, values) -> str:
    return _shown(f"{names[j]} ({values[j]:g})" for j in rows)


def _value_findings(facts, y, names, init_weights, options) -> list[Finding]:
    findings = []

    def error(code, rows, message):
        if len(rows):
            findings.append(Finding("error", code, message(rows), rows))

    error(
        "matrix-not-finite",
        np.flatnonzero(facts.bad),
        lambda rows: f"matrix: NaN or Inf in {_count(rows, 'row')}: {_shown(names[j] for j in rows)}",
    )
    error(
        "target-not-finite",
        np.flatnonzero(~np.isfinite(y)),
        lambda rows: f"targets: {_count(rows, 'value')} not finite: {_values_shown(rows, names, y)}",
    )
    for key, column in options.items():
        if column is None:
            continue
        column = _fitting(f"target {key}", column, len(y))
        allowed = column != 0 if key == "scales" else column >= 0
        error(
            f"target-{key}",
            np.flatnonzero(~(np.isfinite(column) & allowed)),
            lambda rows, key=key, column=column: (
                f"target {key}: expected finite values {'other than 0' if key == 'scales' else '>= 0'}, "
                f"got {_values_shown(rows, names, column)}"
            ),
        )
    if init_weights is not None:
        weights = _fitting("init weights", init_weights, len(facts.used))
        error(
            "initial-weight",
            np.flatnonzero(~(np.isfinite(weights) & (weights >= 0))),
            lambda rows: (
                "init weights: expected finite non-negative values, got "
                + _shown(f"{weights[i]:g} at record {i}" for i in rows)
            ),
        )
    return findings


def _count(rows, noun: str) -> str:
    return f"{len(rows):,} {noun}{'' if len(rows) == 1 else 's'}"


def _loss_findings(y, names, loss_type, target_scales) -> list[Finding]:
    rows = np.flatnonzero(y == -1)
    if loss_type != "relative" or target_scales is not None or not len(rows):
        return []
    message = (
        f"targets: {_count(rows, 'value')} of -1, where the relative loss divides by target + 1 = 0 "
        f"(give a scale or use another --loss): {_shown(names[j] for j in rows)}"
    )
    return [Finding("error", "relative-scale-zero", message, rows)]


def _reach_findings(facts: RowFacts, y, names, reachable) -> list[Finding]:
    findings = []
    empty = facts.nonzeros == 0
    if len(rows := np.flatnonzero(empty & (y != 0) & np.isfinite(y))):
        text = (
            f"matrix: {_count(rows, 'row')} without nonzeros cannot reach the target: {_values_shown(rows, names, y)}"
        )
        findings.append(Finding("error", "empty-row", text, rows))
    if len(rows := np.flatnonzero(empty & (y == 0))):
        text = f"matrix: {_count(rows, 'row')} without nonzeros, target 0, always met: {_shown(names[j] for j in rows)}"
        findings.append(Finding("warning", "empty-row-zero-target", text, rows))
    unreachable = ~reachable & ~empty & np.isfinite(y) & (facts.bad == 0)
    if len(rows := np.flatnonzero(unreachable)):
        text = (
            f"targets: {_count(rows, 'target')} that no non-negative weights can reach, no entry of the row has the "
            f"target's sign: {_values_shown(rows, names, y)}"
        )
        findings.append(Finding("error", "unreachable-sign", text, rows))
    return findings


def _duplicate_findings(facts: RowFacts, y, names) -> list[Finding]:
    # Two 64-bit hashes of different rows agree once in 2^64 pairs: 100,000 targets have 2^32 pairs.
    candidates = np.flatnonzero((facts.nonzeros > 0) & (facts.bad == 0))
    order = candidates[np.lexsort((candidates, facts.nonzeros[candidates], facts.hash[candidates]))]
    same = (facts.hash[order[1:]] == facts.hash[order[:-1]]) & (facts.nonzeros[order[1:]] == facts.nonzeros[order[:-1]])
    earlier, later = order[:-1][same], order[1:][same]
    findings = []
    equal = y[earlier] == y[later]
    for code, chosen in (("contradictory-rows", ~equal), ("duplicate-rows", equal)):
        pairs = sorted(zip(later[chosen].tolist(), earlier[chosen].tolist(), strict=True))
        if not pairs:
            continue
        if code == "contradictory-rows":
            what = f"{_count(pairs, 'pair')} of rows with the same entries but different targets, not all can be met"
            shown = (f"{names[b]} ({y[b]:.9g}) and {names[a]} ({y[a]:.9g})" for a, b in pairs)
        else:
            what = f"{_count(pairs, 'row')} with the same entries and target as another, counted more than once"
            shown = (f"{names[a]} repeats {names[b]}" for a, b in pairs)
        rows = np.unique(np.array(pairs))
        findings.append(Finding("warning", code, f"matrix: {what}: {_shown(shown)}", rows))
    return findings


def _column_findings(facts: RowFacts) -> list[Finding]:
    unused = np.flatnonzero(~facts.used)
    if not len(unused):
        return []
    shown = _shown(str(i) for i in unused)
    text = (
        f"matrix: {_count(unused, 'record')} of {len(facts.used):,} in no target, their weights mean nothing: {shown}"
    )
    return [Finding("warning", "unused-column", text, unused)]
