"""Rebuilds the calibration problem of the Current Population Survey (CPS), whose small sister is bundled with l0fast.

    python benchmarks/build_cps_problem.py --out cps_280k.npz              # fetches taxcalc 6.8.0 from PyPI (25 MB)
    python benchmarks/build_cps_problem.py --sdist taxcalc-6.8.0.tar.gz --out cps_280k.npz
    python benchmarks/build_cps_problem.py --cps cps_tax_units.parquet --n 40000 --out cps_40k.npz

The records are the 280,005 tax units of Tax-Calculator's public-domain CPS file, the targets what its published weights
of 2023 say about incomes, benefits, ages and states. So weights that meet every target exist (``w_true``); the survey's
own design weights of the year 2014, brought to the number of units of 2023, are where a calibration starts (``w0``).

The file holds the matrix as CSR targets x records (``data, indices, indptr, shape``), ``y``, ``names``, ``groups``,
``w0`` and ``w_true``. ``--n 40000`` gives l0fast/data/cps_tax_problem_40k.npz bit for bit.
"""

import argparse
import gzip
import hashlib
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse as sp

SDIST_URL = (
    "https://files.pythonhosted.org/packages/6c/28/"
    "fcbb08ec976cca97e5ca90b38c3a65f654e673adc7d7a732d5a9e6733592/taxcalc-6.8.0.tar.gz"
)
SDIST_SHA256 = "3813377ba9c5a4cdc1854093dff84f3d942ae6cd16593e142daf37bf385db024"
WEIGHT_UNIT = 100
"""The sdist stores weights as whole hundredths."""

INCOMES = (
    *("e00200", "e00900", "e02100", "e00300", "e00400", "e00600", "e00650", "e01100", "e01400", "e01500"),
    *("e01700", "e02300", "e02400", "e03300", "e17500", "e18400", "e18500", "e19200", "e19800"),
)
"""Amounts of the tax form, by Tax-Calculator's names: wages, business, farm, interest, ... charity."""

BENEFITS = (
    *("snap_ben", "ssi_ben", "tanf_ben", "mcaid_ben", "mcare_ben"),
    *("vet_ben", "housing_ben", "wic_ben", "other_ben"),
)
CHARACTERISTICS = ("fips", "MARS", "XTOT", "nu18", "age_head", "agi_bin")
WEIGHTS = ("s006", "WT2023")


# -- records ----------------------------------------------------------------------------------------------------------


def fetch_sdist(folder: Path) -> Path:
    """The sdist in folder, downloaded if it is not there yet.

    Raises:
        OSError: it cannot be fetched.
        ValueError: what came is another file.
    """
    path = folder / SDIST_URL.rsplit("/", 1)[1]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(SDIST_URL, timeout=60) as response:
            content = response.read()
        if hashlib.sha256(content).hexdigest() != SDIST_SHA256:
            raise ValueError(f"{SDIST_URL}: expected sha256 {SDIST_SHA256}, got another file")
        partial = path.with_suffix(".part")
        partial.write_bytes(content)
        partial.replace(path)  # a download that was cut off never has the final name
    return path


def records_from_sdist(path: Path) -> pd.DataFrame:
    """The records of the sdist. Nothing in it is built or run."""
    root = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:

        def table(name: str) -> pd.DataFrame:
            with gzip.open(archive.extractfile(f"{root}/taxcalc/{name}.csv.gz")) as file:
                return pd.read_csv(file)

        records = table("cps")[[*CHARACTERISTICS, *INCOMES, *BENEFITS, "s006"]]
        published = table("cps_weights")["WT2023"]
    return records.assign(s006=records["s006"] / WEIGHT_UNIT, WT2023=published / WEIGHT_UNIT)


def records_from_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, columns=[*CHARACTERISTICS, *INCOMES, *BENEFITS, *WEIGHTS])


def sample(records: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """count of the records in their order, with weights raised so that they stand for all."""
    chosen = np.random.default_rng(seed).choice(len(records), count, replace=False)
    chosen.sort()
    raised = records.iloc[chosen].reset_index(drop=True)
    for name in WEIGHTS:
        raised[name] = raised[name] * (len(records) / count)
    return raised


# -- targets ----------------------------------------------------------------------------------------------------------


class Targets:
    """Collects the rows of the matrix; a row without any nonzero is left out."""

    def __init__(self):
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []
        self.names: list[str] = []
        self.groups: list[int] = []
        self._group = -1

    def begin_group(self) -> None:
        self._group += 1

    def add(self, name: str, values) -> None:
        values = np.asarray(values, dtype=np.float64)
        where = np.flatnonzero(values)
        if where.size:
            self.rows.append((where.astype(np.int32), values[where].astype(np.float32)))
            self.names.append(name)
            self.groups.append(self._group)

    def matrix(self, n_records: int) -> sp.csr_matrix:
        indices, data = (np.concatenate(part) for part in zip(*self.rows, strict=True))
        indptr = np.concatenate([[0], np.cumsum([where.size for where, _ in self.rows])])
        return sp.csr_matrix((data, indices, indptr), shape=(len(self.rows), n_records))


def add_national_totals(targets: Targets, records: pd.DataFrame) -> None:
    targets.begin_group()
    targets.add("us/tax_units", np.ones(len(records)))
    targets.add("us/people", records["XTOT"])
    targets.add("us/children_u18", records["nu18"])
    for amount in (*INCOMES, *BENEFITS):
        targets.add(f"us/{amount}/amount", records[amount])
        targets.add(f"us/{amount}/count", records[amount] != 0)


def add_units_by_status_and_income(targets: Targets, records: pd.DataFrame) -> None:
    """Filing status (MARS) crossed with the bin of adjusted gross income (AGI)."""
    targets.begin_group()
    status, income = records["MARS"].to_numpy(), records["agi_bin"].to_numpy()
    for s in np.unique(status):
        targets.add(f"us/mars={s}/units", status == s)
    for b in np.unique(income):
        targets.add(f"us/agi={b}/units", income == b)
        for s in np.unique(status):
            targets.add(f"us/agi={b}/mars={s}/units", (income == b) & (status == s))


def add_amounts_by_income(targets: Targets, records: pd.DataFrame) -> None:
    targets.begin_group()
    income = records["agi_bin"].to_numpy()
    for amount in INCOMES:
        values = records[amount].to_numpy()
        for b in np.unique(income):
            targets.add(f"us/agi={b}/{amount}/amount", np.where(income == b, values, 0))
            targets.add(f"us/agi={b}/{amount}/count", (income == b) & (values != 0))


def add_units_by_age(targets: Targets, records: pd.DataFrame) -> None:
    targets.begin_group()
    age = records["age_head"].to_numpy()
    for first in range(15, 90, 5):
        targets.add(f"us/age_head={first}-{first + 4}/units", (age >= first) & (age < first + 5))


def add_state_totals(targets: Targets, records: pd.DataFrame) -> None:
    """Fifteen topics, each a group with one target for each of the 51 states."""
    topics = {
        "units": np.ones(len(records)),
        "people": records["XTOT"],
        "children_u18": records["nu18"],
        "elderly_heads": records["age_head"] >= 65,
        "wages": records["e00200"],
        "social_security": records["e02400"],
        "interest": records["e00300"],
        "pensions": records["e01500"],
        "snap": records["snap_ben"],
        "ssi": records["ssi_ben"],
        "mcaid_count": records["mcaid_ben"] != 0,
        "mcare_count": records["mcare_ben"] != 0,
        "ui": records["e02300"],
        "joint_units": records["MARS"] == 2,
        "units_with_children": records["nu18"] > 0,
    }
    states = records["fips"].to_numpy()
    for topic, values in topics.items():
        targets.begin_group()
        values = np.asarray(values, dtype=np.float64)
        for state in np.unique(states):
            targets.add(f"state={state}/{topic}", np.where(states == state, values, 0))


def build_problem(records: pd.DataFrame) -> dict[str, np.ndarray]:
    """The arrays of the file, by name. Targets whose true value is 0 are left out: no relative error exists there."""
    targets = Targets()
    add_national_totals(targets, records)
    add_units_by_status_and_income(targets, records)
    add_amounts_by_income(targets, records)
    add_units_by_age(targets, records)
    add_state_totals(targets, records)
    matrix = targets.matrix(len(records))
    w_true = records["WT2023"].to_numpy(dtype=np.float64)
    design = records["s006"].to_numpy(dtype=np.float64)
    y = matrix.astype(np.float64) @ w_true
    kept = np.abs(y) > 0
    matrix = matrix[kept]
    return {
        "data": matrix.data,
        "indices": matrix.indices.astype(np.int32),
        "indptr": matrix.indptr,
        "shape": np.array(matrix.shape),
        "y": y[kept],
        "names": np.array(targets.names)[kept],
        "groups": np.array(targets.groups)[kept],
        "w0": design * w_true.sum() / design.sum(),
        "w_true": w_true,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--cps", type=Path, metavar="PARQUET", help="the tax units as a parquet file")
    source.add_argument("--sdist", type=Path, metavar="FILE", help="taxcalc-6.8.0.tar.gz, already downloaded")
    parser.add_argument("--n", type=int, default=0, help="draw this many records (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--out", type=Path, default=Path("cps_tax_problem.npz"))
    options = parser.parse_args(arguments)
    if options.cps is not None:
        records = records_from_parquet(options.cps)
    else:
        records = records_from_sdist(options.sdist or fetch_sdist(options.out.resolve().parent))
    if options.n:
        records = sample(records, options.n, options.seed)
    problem = build_problem(records)
    np.savez_compressed(options.out, **problem)
    targets, count = problem["shape"]
    groups = np.unique(problem["groups"]).size
    print(
        f"{options.out}: {targets:,} targets in {groups} groups, {count:,} records, {problem['data'].size:,} nonzeros"
    )


if __name__ == "__main__":
    main()
