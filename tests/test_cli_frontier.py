"""``l0fast frontier``: a table, a picture and weights along decreasing budgets."""

import numpy as np
import pytest
from cli_problem import fails, problem_folder, read_csv, run  # noqa: F401 - a fixture

FRONTIER = ("frontier", "matrix.npz", "--targets", "targets.csv", "--init-weights", "w0.npy", "--epochs", 200)


def test_table_plot_and_weights(problem, capsys):
    options = ("--records", 30, 15, "--exact", "--refit", "--plot", "f.svg", "--weights", "w", "--max-weight-ratio", 9)
    assert run(*FRONTIER, "-o", "f.csv", *options) == 0
    said = capsys.readouterr().out
    assert "budget 30: 30 records, mean relative error " in said and "epoch 400 of 400: " in said
    rows = read_csv("f.csv")
    assert [(row["target"], row["records"]) for row in rows] == [("30", "30"), ("15", "15")]
    assert float(rows[0]["mean_error"]) < float(rows[1]["mean_error"]) and 5 < float(rows[1]["ess"]) <= 15
    assert (problem / "f.svg").read_text().lstrip().startswith("<?xml")
    for count in (30, 15):
        weights = np.load(f"w/weights-{count}.npy")
        assert (weights > 0).sum() == count and weights.max() <= 9 * 80


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--records 5 9 -o f.csv", "--records: expected budgets that decrease, got 9 after 5"),
        ("--records 99 -o f.csv", "target_records: expected 1 to 60 records, got 99"),
        ("--records 9 -o f.npy", "--output: expected a .csv file, got f.npy"),
        ("--records 9 -o targets.csv", "--output: targets.csv is the file of --targets too"),
        ("--records 9 -o f.csv --weights matrix.npz/w", "--weights: cannot make the folder matrix.npz/w"),
    ],
)
def test_refused(problem, capsys, options, says):
    fails(capsys, *FRONTIER, *options.split(), says=says)
