"""Targets in words that are parts of others."""

import numpy as np
import pytest
from cli_problem import run, write_csv

from l0fast.calibration import CalibrationProblem, Hierarchy
from l0fast.calibration.frames.targets import Margins, Target

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

FIT = {"epochs": 30, "lambda_l0": 1e-4, "seed": 1}


def people():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"state": rng.choice(["CA", "NY", "TX"], 200), "income": rng.uniform(1, 9, 200)})


def test_parents_by_name_and_by_label():
    targets = [
        Target(1, 900.0, name="people"),
        Margins("state", pd.DataFrame({"state": ["CA", "NY", "TX"], "value": [300.0, 310, 320]}), parent="people"),
        {"measure": "income", "value": 1600.0, "filter": "state == 'CA'", "parent": "income"},
        {"measure": "income", "value": 1500.0, "filter": "state == 'NY'", "parent": "income"},
    ]
    problem = CalibrationProblem.from_frame(people(), targets)
    assert problem.parents == [None, *["people"] * 3, *["income"] * 2]
    hierarchy = problem.fit_options()["hierarchy"]
    assert hierarchy == Hierarchy({"people": [1, 2, 3], "income": [4, 5]}, rows={"people": 0})
    people_row, income_row = hierarchy.consistency(problem.y)
    assert (people_row["total"], people_row["children_total"]) == (900.0, 930.0) and income_row["total"] == 3100.0
    fitted = problem.fit(**FIT)
    by_hand = problem.fit(**FIT, hierarchy={"income": [4, 5], "x": [1, 2, 3]})
    plain = problem.fit(**FIT, hierarchy=None)
    assert (fitted.log_weight != plain.log_weight).any() and (fitted.log_weight != by_hand.log_weight).any()


def test_without_parents_nothing_changes():
    problem = CalibrationProblem.from_frame(people(), [Target(1, 900.0, parent=" "), Target("income", 1.0)])
    assert problem.parents is None and problem.fit_options()["hierarchy"] is None


def test_data_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    people().to_parquet("people.parquet")
    header = ("name", "measure", "filter", "value", "parent")
    rows = [(s, 1, f"state == '{s}'", 300 + 10 * k, "us") for k, s in enumerate(("CA", "NY", "TX"))]
    write_csv("targets.csv", header, rows)
    write_csv("parents.csv", ("name", "value"), [("us", 1000)])
    command = ("calibrate", "--data", "people.parquet", "--targets", "targets.csv", "--epochs", 200, "--no-gates")
    sums = []
    for weight in (0, 100):
        assert run(*command, "-o", "w.npy", "--parents", "parents.csv", "--hierarchy-weight", weight) == 0
        sums.append(float(np.load("w.npy").sum()))
    assert abs(sums[0] - 930) < 5 and 980 < sums[1] < 1000
    assert "1 of 1 parents are not the sum of their children's values: us by -7.0 %" in capsys.readouterr().out
