"""The problems and states that calibration is measured on, and the bytes that an epoch of them has to move."""

from dataclasses import dataclass
from pathlib import Path

import build_cps_problem
import numpy as np
import torch
from common import ROOT
from scipy import sparse as sp

BETA, GAMMA, ZETA = 0.35, -0.1, 1.1
LAMBDA_L0, LAMBDA_L2 = 1e-4, 1e-12
STILL = 1e-12
"""The step while timing: smaller than any weight's last digit, so that the gates stay as open as the state says."""

OPEN_KEEP_PROB = 0.999
CLOSED_SHARE = 0.9


@dataclass(frozen=True)
class Problem:
    """Targets y for the totals M w; a calibration starts from the weights w0."""

    name: str
    M: sp.csr_matrix
    y: np.ndarray
    w0: np.ndarray

    @property
    def n_records(self) -> int:
        return self.M.shape[1]

    def __str__(self) -> str:
        return f"{self.name}: {self.M.shape[0]:,} targets x {self.M.shape[1]:,} records, {self.M.nnz:,} nonzeros"

    def save(self, path: Path) -> None:
        """Writes a file that :func:`load_problem` reads, uncompressed: it is read again at once."""
        arrays = {"data": self.M.data, "indices": self.M.indices, "indptr": self.M.indptr}
        np.savez(path, **arrays, shape=np.array(self.M.shape), y=self.y, w0=self.w0)


def load_problem(name: str, path: Path) -> Problem:
    with np.load(path, allow_pickle=False) as file:
        M = sp.csr_matrix((file["data"], file["indices"], file["indptr"]), shape=tuple(file["shape"]))
        return Problem(name, M, file["y"], file["w0"])


def synthetic(name: str, n_targets: int, n_records: int, per_column: int, seed: int = 0) -> Problem:
    """Random rows, exactly per_column of them for each record, and positive values; some weights meet all targets."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        return np.sort(rng.integers(0, n_targets, (count, per_column), dtype=np.int32), axis=1)

    rows = draw(n_records)
    while (again := np.flatnonzero((np.diff(rows, axis=1) == 0).any(axis=1))).size:
        rows[again] = draw(again.size)
    values = rng.random(rows.size, dtype=np.float32) + np.float32(0.5)
    indptr = np.arange(0, rows.size + 1, per_column, dtype=np.int32)
    M = sp.csc_matrix((values, rows.ravel(), indptr), shape=(n_targets, n_records)).tocsr()
    w_true = rng.lognormal(0.0, 0.5, n_records)
    return Problem(name, M, M @ w_true, np.ones(n_records))


def cps_280k(given: Path | None, cache: Path) -> Problem:
    """The full CPS problem from a file (.npz, or .parquet with the tax units), else built once into the cache."""
    path = given or cache / "cps_280k.npz"
    if not path.exists() and given is None:
        build_cps_problem.main(["--out", str(path)])  # fetches the sdist into the cache
    elif path.suffix == ".parquet":
        cache.mkdir(parents=True, exist_ok=True)
        built = cache / "cps_280k_from_parquet.npz"
        build_cps_problem.main(["--cps", str(path), "--out", str(built)])
        path = built
    return load_problem("cps280k", path)


def make_problem(name: str, cps: Path | None, cache: Path) -> Problem:
    """The problem of that name.

    Raises:
        OSError: the full CPS problem is neither at hand nor to be fetched.
    """
    if name == "cps40k":
        return load_problem(name, ROOT / "l0fast" / "data" / "cps_tax_problem_40k.npz")
    if name == "cps280k":
        return cps_280k(cps, cache)
    if name == "synthetic":
        return synthetic(name, 32_633, 337_704, 60)
    return synthetic(name, 300, 4_000, 20)  # tiny


PROBLEMS = ("cps40k", "cps280k", "synthetic", "tiny")


def log_alpha_of(state: str, n_records: int) -> torch.Tensor:
    """'open': init_keep_prob 0.999. 'closed90': each gate is open with probability 0.1, another tenth every epoch."""
    if state == "open":
        value = np.log(OPEN_KEEP_PROB / (1 - OPEN_KEEP_PROB))
    else:
        # P(z != 0) = sigmoid(log_alpha - beta log(-gamma / zeta)), solved for log_alpha
        value = np.log((1 - CLOSED_SHARE) / CLOSED_SHARE) + BETA * np.log(-GAMMA / ZETA)
    return torch.full((n_records,), float(value))


STATES = ("open", "closed90")


@dataclass(frozen=True)
class EpochBytes:
    """What one epoch has to move, at the least, in the formats that l0fast keeps: a bound for every contender.

    two_pass: the matrix read twice, as a forward and a backward pass that are apart have to. engine: read once;
    l0fast runs the next epoch's forward pass of a block of columns while the backward pass has it in the cache.
    Both with the state: log_weight, log_alpha and Adam's four moments read and written, the gates written and read.
    """

    two_pass: int
    engine: int

    @classmethod
    def of(cls, rows: int, values: int, indptr: int, n_records: int, open_share: float) -> "EpochBytes":
        """From the bytes of the packed arrays. Only open columns are read."""
        matrix = round((rows + values + indptr) * open_share)
        state = (6 * 2 + 2) * 4 * n_records
        return cls(2 * matrix + state, matrix + state)
