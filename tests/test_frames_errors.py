"""What is wrong with records or targets is said once, by name, before anything is built."""

import datetime
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from cli_problem import ROOT
from frames_problem import random_frame

from l0fast.calibration.frames import CalibrationProblem, Margins, Target

FRAME = random_frame(60)


def refused(says, targets, frame=FRAME, error=ValueError, **options):
    with pytest.raises(error) as caught:
        CalibrationProblem.from_frame(frame, targets, **options)
    message = str(caught.value)
    assert says in message and "\n" not in message, message


@pytest.mark.parametrize(
    "target, says",
    [
        (Target("incom", 1), "targets: incom: measure: no column 'incom' in the data"),
        (Target("AGI", 1), "no column 'AGI' in the data; near it: agi"),
        (Target("kid", 1, name="t"), "targets: t: measure: no column 'kid' in the data; near it: kids"),
        (
            Target(1, 1, "kids > 1 and stat == 'CA'", "t"),
            "targets: t: filter at position 14 of kids > 1 and stat == 'CA': no column 'stat' in the data; near it: "
            "state",
        ),
        (
            Target(1, 1, "kids =", "t"),
            "targets: t: filter: expected a column, a number, a quoted text or an operator at position 6",
        ),
        (Target(1, None, name="t"), "targets: t: expected a value, got none"),
        (Target(1, np.nan, name="t"), "targets: t: expected a value, got none"),
        (Target(1, np.inf, name="t"), "targets: t: value: expected a finite number, got inf"),
        (Target(1, "x", name="t"), "targets: t: value: expected a number, got 'x'"),
        (Target(1, 1, name="t", weight=-1), "targets: t: weight: expected a finite number of at least 0, got -1"),
        (Target(1, 1, name="t", tolerance=-1), "targets: t: tolerance: expected a finite number of at least 0, got -1"),
        (Target(1, 1, name="t", scale=0), "targets: t: scale: expected a number other than 0, got 0"),
        (Target("", 1), "targets: target 1 has no measure; 1 counts records"),
        (
            Target(1, 5, "state == 'XX'", "t"),
            "targets: no record counts towards t (no record meets state == 'XX')",
        ),
        (Target("kids", 5, "kids == 0", "t"), "targets: no record counts towards t (kids is 0 on all "),
        ({"measure": 1, "value": 1, "filtr": "x"}, "target 1 has an unknown field 'filtr'; near it: filter"),
        ({"measure": 1}, "targets: target 1 has no value"),
        ({"by": "kids"}, "targets: target 1 has no totals"),
        ([], "expected at least one target, got none"),
        (
            pd.DataFrame({"measure": [1], "value": [2], "Filters": ["kids == 1"]}),
            "unknown column 'Filters'; near it: f",
        ),
        (pd.DataFrame({"measure": [1]}), "targets: no column 'value'; found measure"),
        (
            [Target(1, 1, name="a"), Target(1, 2, name="b"), Target("kids", 2, name="a")],
            "targets: expected distinct names, got 'a' for targets 1 and 3",
        ),
        (
            [Target(1, 1, name="a", group="g"), Target(1, 2, name="b")],
            "targets: group: expected one for every target or for none, b has none",
        ),
        (
            [Target(1, 1, name="a", scale=2), Target(1, 2, name="b")],
            "targets: scale: expected one for every target or for none, b has none",
        ),
        (Margins("kids", pd.DataFrame({"kid": [1], "value": [2]})), "targets: no column 'kids'; found kid, value"),
        (Margins("kids", pd.DataFrame({"kids": [None], "value": [2]})), "target 1: no kids in row 1 of the totals"),
        (Margins([], pd.DataFrame({"value": [2]})), "target 1: by: expected at least one column, got none"),
        (
            Margins("kids", pd.DataFrame({"kids": [1, 1], "value": [2, 3]})),
            "expected distinct names, got 'count/kids=1' for targets 1 and 2",
        ),
    ],
)
def test_values(target, says):
    refused(says, target)


@pytest.mark.parametrize(
    "target, says",
    [
        (3, "targets: expected a list of targets, a DataFrame or a path, got int"),
        ([3], "targets: expected Target, Margins or dict, got int as target 1"),
        (Target(2, 1), "targets: measure of target 1: expected a column or 1, got 2"),
        (Target(True, 1), "targets: measure of target 1: expected a column or 1, got True"),
        (Target(1, 1, 3, "t"), "targets: t: filter: expected a text, got int (3)"),
        (Target("state", 1, name="t"), "targets: t: measure state: expected numbers, got a"),
        (
            Target(1, 1, "kids == 0 and agi == 'high'", "t"),
            "targets: t: filter: agi at position 15 of kids == 0 and agi == 'high': agi holds numbers, it cannot be "
            "compared with 'high'",
        ),
        (Target(1, 1, "state == 6", "t"), "state holds text, it cannot be compared with 6"),
        (Target(1, 1, "state in ('CA', 6)", "t"), "state holds text, it cannot be compared with 6"),
        (Target(1, 1, "3 <= state", "t"), ">= compares numbers, but state is text"),
        (Target(1, 1, "unused == 'x'", "t"), "expected a column of numbers or text, got binary"),
        (Margins("kids", {"a": 1}), "target 1: totals: expected a DataFrame or a path, got dict"),
        (Margins("kids", pd.DataFrame({"kids": ["a"], "value": [1]})), "kids holds numbers, it cannot be compared"),
    ],
)
def test_types(target, says):
    refused(says, target, error=TypeError)


def test_columns_of_no_use():
    day = FRAME.assign(day=datetime.date(2026, 1, 1), mixed=["a", 1] * 30)
    refused("expected a column of numbers or text, got date32", Target(1, 1, "day == 3"), day, TypeError)
    refused("column mixed: expected numbers or text, got a mixture", Target(1, 1, "mixed == 3"), day, TypeError)
    CalibrationProblem.from_frame(day, Target(1, 1))  # a column that nobody asks for does no harm
    refused("got agi more than once", Target(1, 1), pd.concat([FRAME, FRAME[["agi"]]], axis=1))


@pytest.mark.parametrize("chunk_rows", [7, 1000])
def test_missing_measures_are_counted_where_they_count(chunk_rows):
    frame = FRAME.assign(pay=np.where(FRAME.kids == 2, np.nan, 1.0))
    count = int((frame.kids == 2).sum())
    says = f"a measure is missing, not finite or beyond the matrix's range on records that count: t (pay: {count})"
    refused(says, [Target(1, 1), Target("pay", 1, name="t")], frame, chunk_rows=chunk_rows)
    frame["pay"] = frame.pay.replace(1.0, np.inf)
    refused(f"t (pay: {len(frame) - count})", Target("pay", 1, "kids != 2", "t"), frame, chunk_rows=chunk_rows)
    frame["pay"] = frame.pay.replace(np.inf, 1e39)
    refused(f"t (pay: {len(frame) - count})", Target("pay", 1, "kids != 2", "t"), frame, chunk_rows=chunk_rows)
    CalibrationProblem.from_frame(frame, Target("pay", 1, "kids != 2"), dtype=torch.float64, chunk_rows=chunk_rows)
    CalibrationProblem.from_frame(frame.assign(pay=frame.pay / 1e39), Target("pay", 1, "kids != 2"))


def test_many_culprits_are_counted():
    targets = [Target(1, 1, f"kids == {k}", f"t{k}") for k in range(90, 100)]
    refused("t94 (no record meets kids == 94) and 5 more", targets)


def test_ids_and_weights():
    refused("id: no column 'HH' in the data; near it: hh", Target(1, 1), id="HH")
    refused("weight: no column 'w01' in the data; near it: w0", Target(1, 1), weight="w01")
    refused("weight: expected a column of numbers, got state", Target(1, 1), error=TypeError, weight="state")
    twice = FRAME.assign(hh=["same", "same", *FRAME.hh[2:]])
    refused("id: expected distinct values, got 'same' more than once in column hh", Target(1, 1), twice, id="hh")
    refused("id: expected distinct values", Target(1, 1), twice, id="hh", chunk_rows=1)
    numbered = FRAME.assign(hh=[*range(59), 7])
    refused("id: expected distinct values, got 7 more than once in column hh", Target(1, 1), numbered, id="hh")
    missing = FRAME.assign(hh=[None, *FRAME.hh[1:]])
    refused("id: expected a value in every row, got 1 missing in column hh", Target(1, 1), missing, id="hh")
    for bad in (-1.0, np.nan, np.inf):
        weights = FRAME.assign(w0=[1.0, bad, *FRAME.w0[2:]])
        says = f"weight: expected finite values of at least 0, got {bad:g} in row 1 of column w0 (1 such)"
        refused(says, Target(1, 1), weights, weight="w0")
    named = CalibrationProblem.from_frame(FRAME.rename(columns={"hh": "weight"}), Target(1, 1), id="weight")
    with pytest.raises(ValueError, match="id: a column 'weight' of the result would be there twice"):
        named.weights_frame(np.ones(60))


def test_options():
    refused("chunk_rows: expected a positive integer, got 0", Target(1, 1), chunk_rows=0)
    refused("dtype: expected torch.float32 or torch.float64", Target(1, 1), dtype=torch.float16)
    refused("data: expected at least one record, got none", Target(1, 1), FRAME[:0])
    refused("data: expected a pandas DataFrame, a pyarrow Table or", Target(1, 1), np.ones((3, 3)), TypeError)


def test_files(tmp_path):
    refused("data: cannot read", Target(1, 1), tmp_path / "none.parquet", OSError)
    FRAME.to_parquet(path := tmp_path / "whole.parquet")
    whole = path.read_bytes()
    for size in (0, 30, len(whole) // 2):
        (tmp_path / "cut.parquet").write_bytes(whole[:size])
        refused("cut.parquet is damaged or not parquet", Target("agi", 1), tmp_path / "cut.parquet")
    broken = bytearray(whole)
    broken[4 : len(whole) // 2] = bytes(len(whole) // 2 - 4)
    (tmp_path / "broken.parquet").write_bytes(broken)
    refused("broken.parquet is damaged", Target("agi", 1), tmp_path / "broken.parquet")

    (tmp_path / "t.csv").write_text("name,measure,value,filter\na,1,3,kids in (1, 2)\n")
    refused("expected 4 fields, got 5 in row 1 of", tmp_path / "t.csv")
    refused("a filter with a comma must stand in quotes", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("")
    refused("expected a header line, got an empty file", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("name,value\na,1\n")
    refused("no column 'measure' of ", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("name,measure,value\n,1,\n")
    refused("targets: count: expected a value, got none", tmp_path / "t.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    refused("t.parquet is damaged or not parquet", tmp_path / "t.parquet")
    refused("targets: expected a .csv or .parquet file, got t.txt", "t.txt")
    (tmp_path / "t.csv").write_text("value,measure,value\n1,1,1\n")
    refused("targets: expected distinct column names, got value, measure, value in", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"measure,value\n\xff\xfe,1\n")
    refused("t.csv is not a CSV file in UTF-8", tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError):
        CalibrationProblem.from_frame(FRAME, tmp_path / "none.csv")


def test_without_pandas_a_file_is_enough(tmp_path):
    FRAME.to_parquet(tmp_path / "f.parquet")
    (tmp_path / "t.csv").write_text("measure,value\nkids,70\n")
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from l0fast.calibration import CalibrationProblem\n"
        f"print(CalibrationProblem.from_frame({str(tmp_path / 'f.parquet')!r}, {str(tmp_path / 't.csv')!r}, 'hh').y)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout == "[70.]\n", done.stderr


def test_without_pyarrow_it_says_what_to_install():
    code = (
        "import sys; sys.modules['pyarrow'] = sys.modules['pyarrow.parquet'] = None\n"
        "from l0fast.calibration.frames import CalibrationProblem, Target\n"
        "CalibrationProblem.from_frame('x.parquet', Target(1, 1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: data frames need pyarrow") and "pip install 'l0fast[data]'" in last
