"""PopulationSim's inputs become records and targets, and its expressions are read without being run."""

import numpy as np
import pandas as pd
import pytest

from l0fast.calibration.frames import CalibrationProblem, populationsim_controls
from l0fast.calibration.frames.expressions import ExpressionError, evaluate

HOUSEHOLDS = pd.DataFrame(
    {
        "hh_id": [10, 11, 12, 13, 14],
        "PUMA": [600, 600, 601, 601, 601],
        "NP": [1, 2, 4, 1, 3],
        "WGTP": [5.0, 0.0, 7.0, 2.0, 1.0],
    }
)
PERSONS = pd.DataFrame(
    {
        "hh_id": [10, 11, 11, 12, 12, 12, 14],
        "age": [3, 1, 2, 1, 4, 2, 9],
        "mode": ["car", None, "bus", "car"] + [None] * 3,
    }
)
CONTROLS = """target,geography,seed_table,importance,control_field,expression
num_hh,PUMA,households,1000000000,HH,(households.WGTP > 0) & (households.WGTP < np.inf)
size_4p,PUMA,households,500,HH4,households.NP >= 4
young,PUMA,persons,500,YOUNG,(persons.age == 1) | (persons.age == 2)
no_mode,REGION,persons,1000,NOMODE,persons['mode'].isna()
"""
PUMAS = pd.DataFrame({"PUMA": [600, 601], "HH": [100, 200], "HH4": [0, 50], "YOUNG": [30, 40]})
REGIONS = pd.DataFrame({"REGION": ["coast"], "NOMODE": [77]})
CROSSWALK = pd.DataFrame({"TAZ": [1, 2, 3], "PUMA": [600, 600, 601], "REGION": ["coast"] * 3})
TOTALS = {"PUMA": PUMAS, "REGION": REGIONS}


@pytest.fixture
def controls(tmp_path):
    path = tmp_path / "controls.csv"
    path.write_text(CONTROLS)
    return path


def test_controls_become_targets_of_each_zone(controls, tmp_path):
    PUMAS.to_csv(tmp_path / "pumas.csv", index=False)
    for pumas in (PUMAS, tmp_path / "pumas.csv"):
        totals = {"PUMA": pumas, "REGION": REGIONS}
        records, targets = populationsim_controls(controls, totals, HOUSEHOLDS, PERSONS, crosswalk=CROSSWALK)
        assert "TAZ" not in records, "a household lies in no single TAZ"
        records.to_csv(tmp_path / "records.csv", index=False)
        for data in (records, tmp_path / "records.csv"):
            problem = CalibrationProblem.from_frame(data, targets, id="hh_id")
            assert dict(zip(problem.names, problem.y, strict=True)) == {
                "num_hh/PUMA=600": 100,
                "num_hh/PUMA=601": 200,
                "size_4p/PUMA=600": 0,
                "size_4p/PUMA=601": 50,
                "young/PUMA=600": 30,
                "young/PUMA=601": 40,
                "no_mode/REGION=coast": 77,
            }
            expected = [
                *([1, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]),
                *([0, 2, 0, 0, 0], [0, 0, 2, 0, 0], [0, 1, 2, 0, 1]),
            ]
            np.testing.assert_array_equal(problem.matrix.to_scipy().toarray(), expected)
            assert problem.groups.tolist() == ["num_hh"] * 2 + ["size_4p"] * 2 + ["young"] * 2 + ["no_mode"]
            weights = problem.target_weights  # median 750; the control that must be met counts a hundredfold
            np.testing.assert_allclose(weights, [100, 100, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 4 / 3])
    _, targets = populationsim_controls(controls, TOTALS, HOUSEHOLDS, PERSONS, crosswalk=CROSSWALK, most_important=None)
    assert {target.weight for target in targets} == {None}


@pytest.mark.parametrize(
    "change, says",
    [
        ({"persons": None}, "controls: young: expected a seed_table among households, got persons"),
        ({"crosswalk": None}, "households: no column 'REGION', the geography of control no_mode"),
        ({"totals": {"PUMA": PUMAS}}, "totals: expected those of REGION, of which no_mode is a control, got PUMA"),
        (
            {"totals": {"PUMA": PUMAS.drop(columns="HH4"), "REGION": REGIONS}},
            "totals of PUMA: no column 'HH4', the control_field of size_4p",
        ),
        ({"persons": PERSONS.assign(hh_id=99)}, "persons: expected households of hh_id, got 99, which is none"),
        ({"households": HOUSEHOLDS.assign(hh_id=1)}, "households: expected distinct values in hh_id"),
        ({"households": HOUSEHOLDS.assign(num_hh=1)}, "controls: num_hh: expected a name that neither"),
        ({"household_id": "id"}, "households: no column 'id'"),
        (
            {"totals": {"PUMA": PUMAS.assign(HH=[1, np.nan]), "REGION": REGIONS}},
            "totals of PUMA: expected a zone and a number in every row of HH",
        ),
    ],
)
def test_what_does_not_fit_is_named(controls, change, says):
    given = {"totals": TOTALS, "households": HOUSEHOLDS, "persons": PERSONS, "crosswalk": CROSSWALK} | change
    with pytest.raises(ValueError) as caught:
        populationsim_controls(controls, **given)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("h.a >= 2", [False, True, True]),
        ("(h.a > -1) & ~(h.a == 2) | (h.b == 'x')", [True, True, True]),
        ("h.a * 2 - 1 == h.a", [True, False, False]),
        ("h.b.isin(['x', 'z'])", [False, True, False]),
        ("h['b'].notna() & (h.a < np.inf)", [True, True, False]),
        ("h.a.between(2, 3)", [False, True, True]),
        ("h.a / 2", [0.5, 1.0, 1.5]),
    ],
)
def test_expressions(text, expected):
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["y", "x", None]})
    assert evaluate(text, {"h": frame}).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "h.a.apply(print)",
        "h.__class__",
        "(lambda: 1)()",
        "[x for x in h.a]",
        "1 < h.a < 3",
        "h.a and h.b",
        "h.c == 1",
        "p.a == 1",
        "h.a =",
        "h.a + 'x' == 1",
        "np.load == 1",
        "(" * 3000 + "h.a" + ")" * 3000,
        "",
    ],
)
def test_anything_else_is_refused(text):
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["y", "x", None]})
    with pytest.raises(ExpressionError, match=r"^expression: "):
        evaluate(text, {"h": frame})
