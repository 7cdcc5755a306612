"""Margins in Calmar's layout become targets, and an order of categories is never guessed."""

import numpy as np
import pandas as pd
import pytest

from l0fast.calibration.frames import CalibrationProblem, calmar_margins

FRAME = pd.DataFrame(
    {
        "categ": [1, 2, 3, 2, 1, 10],
        "sex": ["m", "f", "f", "m", None, "m"],
        "salary": [10.0, 20.0, 0.0, 5.0, 1.0, 2.0],
        "mixed": ["a", "B", "a", "B", "a", "B"],
        "it's": ["x", "y", "x", "x", "y", "y"],
    }
)
LINES = [["categ", 4, 80, 90, 60, 7], ["sex", 2, 140, 90, 0, 0], ["salary", 0, 470000, 0, 0, 0]]


@pytest.mark.parametrize("form", [list, np.array, pd.DataFrame])
def test_lines_become_rows(tmp_path, form):
    FRAME.to_parquet(tmp_path / "f.parquet")
    for data in (FRAME, tmp_path / "f.parquet"):
        problem = CalibrationProblem.from_frame(data, calmar_margins(form(LINES), data))
        assert problem.names == ["categ=1", "categ=2", "categ=3", "categ=10", "sex=f", "sex=m", "salary"]
        assert problem.y.tolist() == [80, 90, 60, 7, 140, 90, 470000]
        assert problem.groups.tolist() == ["categ"] * 4 + ["sex"] * 2 + ["salary"]
        rows = [FRAME.categ == k for k in (1, 2, 3, 10)] + [FRAME.sex == s for s in "fm"] + [FRAME.salary]
        np.testing.assert_array_equal(problem.matrix.to_scipy().toarray(), np.array(rows, dtype=np.float32))


def test_shares_and_levels():
    shares = [("mixed", 2, 0.25, 0.75), ("it's", 2, 0.5, 0.5), ("salary", 0, 100)]
    targets = calmar_margins(shares, FRAME, levels={"mixed": ["a", "B"]}, percent=True, total=400)
    assert [(t.name, t.value) for t in targets] == [
        *(("mixed=a", 100), ("mixed=B", 300), ("it's=x", 200), ("it's=y", 200), ("salary", 100))
    ]
    rows = CalibrationProblem.from_frame(FRAME, targets).matrix.to_scipy().toarray()
    np.testing.assert_array_equal(rows[0], FRAME.mixed == "a")


@pytest.mark.parametrize(
    "lines, says",
    [
        ([["sexe", 2, 1, 1]], "margins: no column 'sexe' in the data; near it: sex"),
        ([["sex", 3, 1, 1, 1]], "margins: sex: expected 2 totals, one for each category, got 3"),
        ([["sex", 2, 1]], "margins: sex: expected 2 totals, got 1"),
        ([["sex", 2, 1, 1, 1]], "margins: sex: expected 2 totals, got 2, and zeros behind them"),
        ([["sex", 1.5, 1, 1]], "margins: sex: expected a whole number of categories, got 1.5"),
        ([["sex", 2, "a", 1]], "sex: total: expected a number, got 'a'"),
        ([["sex", 2]], "expected (variable, number of categories, totals ...)"),
        ([["mixed", 2, 1, 1]], "margins: mixed: the order of its categories ('B', 'a') depends on the language"),
    ],
)
def test_bad_lines(lines, says):
    with pytest.raises(ValueError) as caught:
        calmar_margins(lines, FRAME)
    assert says in str(caught.value)
    with pytest.raises(ValueError, match="total: expected the size of the population"):
        calmar_margins(lines, FRAME, percent=True)
