"""From a parquet file of CPS tax units and about 1,500 targets in words to a packed problem: seconds and memory.

    python benchmarks/bench_frames.py --data cps_tax_units.parquet

The targets are those of benchmarks' full CPS problem, their values the totals under the weights WT2023. The file is not
part of the project; it can be built from the PyPI sdist taxcalc==6.8.0 (cps.csv.gz, cps_weights.csv.gz).
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd

from l0fast.calibration.frames import CalibrationProblem

WEIGHT = "WT2023"
AMOUNTS = (
    *("e00200", "e00900", "e02100", "e00300", "e00400", "e00600", "e00650", "e01100", "e01400", "e01500", "e01700"),
    *("e02300", "e02400", "e03300", "e17500", "e18400", "e18500", "e19200", "e19800", "snap_ben", "ssi_ben"),
    *("tanf_ben", "mcaid_ben", "mcare_ben", "vet_ben", "housing_ben", "wic_ben", "other_ben"),
)
STATE_MEASURES = {
    "units": (1, ""),
    "people": ("XTOT", ""),
    "children_u18": ("nu18", ""),
    "elderly_heads": (1, "age_head >= 65"),
    **{name: (name, "") for name in ("e00200", "e02400", "e00300", "e01500", "snap_ben", "ssi_ben")},
    "mcaid_count": (1, "mcaid_ben != 0"),
    "mcare_count": (1, "mcare_ben != 0"),
    "e02300": ("e02300", ""),
    "joint_units": (1, "MARS == 2"),
    "units_with_children": (1, "nu18 > 0"),
}


def cps_targets(frame: pd.DataFrame) -> list[dict]:
    """Targets without values: name, measure, filter, group."""
    rows = []

    def add(group, name, measure, *conditions):
        text = " and ".join(condition for condition in conditions if condition)
        rows.append({"group": group, "name": name, "measure": measure, "filter": text})

    marital, bins = np.unique(frame.MARS).tolist(), np.unique(frame.agi_bin).tolist()
    for measure, name in ((1, "tax_units"), ("XTOT", "people"), ("nu18", "children_u18")):
        add("us", f"us/{name}", measure)
    for column in AMOUNTS:
        add("us", f"us/{column}/amount", column)
        add("us", f"us/{column}/count", 1, f"{column} != 0")
    for m in marital:
        add("agi x mars", f"us/mars={m}", 1, f"MARS == {m}")
    for k in bins:
        add("agi x mars", f"us/agi={k}", 1, f"agi_bin == {k}")
        for m in marital:
            add("agi x mars", f"us/agi={k}/mars={m}", 1, f"agi_bin == {k}", f"MARS == {m}")
        for column in AMOUNTS[:19]:
            add("agi", f"us/agi={k}/{column}/amount", column, f"agi_bin == {k}")
            add("agi", f"us/agi={k}/{column}/count", 1, f"agi_bin == {k}", f"{column} != 0")
    for a in range(15, 90, 5):
        add("age", f"us/age_head={a}", 1, f"{a} <= age_head < {a + 5}")
    for name, (measure, condition) in STATE_MEASURES.items():
        for state in np.unique(frame.fips).tolist():
            add(f"state {name}", f"state={state}/{name}", measure, f"fips == {state}", condition)
    return rows


def with_values(rows: list[dict], frame: pd.DataFrame) -> list[dict]:
    """The same with ``value``, computed by pandas; targets of 0 are left out."""
    weights, valued, masks = frame[WEIGHT].to_numpy(), [], {}
    for row in rows:
        where = np.ones(len(frame), dtype=bool)
        for condition in filter(None, row["filter"].split(" and ")):
            if condition not in masks:
                masks[condition] = frame.eval(condition).to_numpy()
            where &= masks[condition]
        measure = 1.0 if row["measure"] == 1 else frame[row["measure"]].to_numpy()
        value = float((weights * measure)[where].sum())
        if value != 0:
            valued.append({**row, "value": value})
    return valued


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="cps_tax_units.parquet")
    parser.add_argument("--chunk-rows", type=int, default=1 << 18)
    options = parser.parse_args()
    frame = pd.read_parquet(options.data)
    targets = pd.DataFrame(with_values(cps_targets(frame), frame))
    for name, data in (("parquet file", options.data), ("DataFrame", frame)):
        began = time.perf_counter()
        problem = CalibrationProblem.from_frame(data, targets, "RECID", "s006", chunk_rows=options.chunk_rows)
        print(f"{name}: {time.perf_counter() - began:.2f} s, {problem.matrix}")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


if __name__ == "__main__":
    main()
