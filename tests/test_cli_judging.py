"""Parents, holdout and comparison from the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_problem import CALIBRATE, fails, problem_folder, read_csv, run, write_csv  # noqa: F401 - a fixture

from l0fast.calibration import Hierarchy, SparseCalibrationWeights

SETTINGS = {"beta": 0.35, "init_keep_prob": 0.999, "log_weight_jitter_sd": 0.05, "seed": 0}


def with_parents(parents):
    """Adds the column to targets.csv; returns the values."""
    rows = read_csv("targets.csv")
    lines = [(*row.values(), parent) for row, parent in zip(rows, parents, strict=True)]
    write_csv("targets.csv", (*rows[0], "parent"), lines)
    return np.array([float(row["value"]) for row in rows])


PARENTS = ["", *["t0"] * 3, *["south"] * 4, *["north"] * 3, ""]


def test_parents_of_the_targets_file_reach_the_fit(problem, capsys):
    import scipy.sparse as sp

    y = with_parents(PARENTS)
    write_csv(
        "parents.csv", ("name", "value", "parent", "weight"), [("north", 300.0, "all", 2), ("south", "", "all", "")]
    )
    arguments = ("--parents", "parents.csv", "--hierarchy-weight", 3, "--level-weight", "2=5", "--no-normalize-groups")
    assert run(*CALIBRATE, "-o", "w.npy", *arguments) == 0
    said = capsys.readouterr().out
    assert "note: 2 of 4 parents are not the sum of their children's values: " in said and "north by " in said
    assert "mean relative error by level: level 0 targets (11) " in said and "level 2 parents (1) " in said
    children = {"t0": [1, 2, 3], "south": [4, 5, 6, 7], "north": [8, 9, 10], "all": ["north", "south"]}
    hierarchy = Hierarchy(children, {"north": 300.0}, {"t0": 0}, 3.0, {2: 5.0}, {"north": 2.0})
    model = SparseCalibrationWeights(60, init_weights=np.full(60, 80.0), **SETTINGS)
    model.fit(
        *(sp.load_npz("matrix.npz"), y, 1e-3, 1e-12, 0.15, 40, "relative"),
        hierarchy=hierarchy,
        target_groups=[f"g{j % 3}" for j in range(12)],
        normalize_groups=False,
    )
    np.testing.assert_array_equal(np.load("w.npy"), model.get_weights(deterministic=True).detach().numpy())
    content = json.loads(Path("w.json").read_text())
    assert [(row["level"], row["kind"], row["targets"]) for row in content["levels"]] == [
        *((0, "targets", 11), (1, "targets", 1), (1, "parents", 3), (2, "parents", 1)),
    ]
    assert {row["label"] for row in content["parents"]} == {"t0", "south", "north", "all"}
    assert content["options"]["hierarchy_weight"] == 3 and content["options"]["level_weight"] == {"2": 5}
    assert content["inputs"]["parents"]["path"] == "parents.csv"
    assert len(content["groups"]) == 3 and content["holdout"] is None


def test_an_empty_column_means_no_parents(problem, capsys):
    assert run(*CALIBRATE, "-o", "plain.npy") == 0
    with_parents([""] * 12)
    assert run(*CALIBRATE, "-o", "w.npy") == 0
    assert "not used" not in capsys.readouterr().out
    np.testing.assert_array_equal(np.load("w.npy"), np.load("plain.npy"))
    assert json.loads(Path("w.json").read_text())["levels"] == []


def test_resume_and_refit_with_parents(problem):
    with_parents(PARENTS)
    assert run(*CALIBRATE, "-o", "whole.npy", "--refit", 20) == 0
    for epochs, more in ((15, ()), (40, ("--resume",))):
        assert run(*CALIBRATE[:-1], epochs, "-o", "w.npy", "--checkpoint", "c.st", "--refit", 20, *more) == 0
    np.testing.assert_array_equal(np.load("w.npy"), np.load("whole.npy"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--parents p.csv", "--parents: x in p.csv is nobody's parent"),
        ("--parents twice.csv", "--parents: expected distinct names, got one twice in twice.csv"),
        ("--parents own.csv", "--parents: t0 in own.csv has a value in targets.csv already"),
        ("--parents word.csv", "--parents: column value: expected a number, got 'many'"),
        ("--parents nameless.csv", "--parents: expected a column name, got value in nameless.csv"),
        ("--parents circle.csv", "--targets: column parent: 'south' is below 'north' is below 'south', a circle"),
        ("--parents none.csv", "--parents: cannot read none.csv"),
        ("--hierarchy-weight -1", "--targets: column parent: weight: expected a finite non-negative number, got -1.0"),
        ("--level-weight 3=1", "--targets: column parent: level_weights: expected levels 1 to 1, got 3"),
        ("--level-weight one", "--level-weight: expected LEVEL=FACTOR, got 'one'"),
    ],
)
def test_parents_refused(problem, capsys, arguments, says):
    with_parents(PARENTS)
    for name, rows in {
        "p.csv": [("name",), ("x",)],
        "twice.csv": [("name",), ("north",), ("north",)],
        "own.csv": [("name", "value"), ("t0", 5)],
        "word.csv": [("name", "value"), ("north", "many")],
        "nameless.csv": [("value",), (5,)],
        "circle.csv": [("name", "parent"), ("north", "south"), ("south", "north")],
    }.items():
        write_csv(name, rows[0], rows[1:])
    fails(capsys, *CALIBRATE, "-o", "w.npy", *arguments.split(), says=says)
    assert not Path("w.npy").exists()


def test_parents_without_the_column(problem, capsys):
    fails(
        capsys, *CALIBRATE, "-o", "w.npy", "--parents", "p.csv", says="--parents: expected a column parent in targets"
    )
    fails(capsys, *CALIBRATE, "-o", "w.npy", "--level-weight", "1=2", says="--level-weight: expected a column parent")


def test_check_looks_at_the_parents(problem, capsys):
    with_parents(PARENTS)
    assert run("check", "matrix.npz", "--targets", "targets.csv") == 0
    assert "note: 1 of 3 parents are not the sum of their children's values: t0 by " in capsys.readouterr().out
    fails(capsys, "check", "matrix.npz", "--targets", "targets.csv", "--level-weight", "2=1", says="expected levels 1")


def test_a_target_that_is_its_own_part(problem, capsys):
    with_parents(["t0", *[""] * 11])
    fails(capsys, *CALIBRATE, "-o", "w.npy", says="--targets: column parent: 't0' is below 't0', a circle")


# -- holdout -----------------------------------------------------------------------------------------------------------


def test_holdout_in_the_json_and_the_report(problem, capsys):
    pytest.importorskip("matplotlib")
    assert run(*CALIBRATE, "-o", "plain.npy") == 0
    folds = ("--holdout", 3, "--holdout-by", "groups")
    assert run(*CALIBRATE, "-o", "w.npy", *folds, "--report", "w.html") == 0
    said = capsys.readouterr().out
    assert "holdout of 3 folds of groups: mean relative error " in said and " on targets left out" in said
    np.testing.assert_array_equal(np.load("w.npy"), np.load("plain.npy"), err_msg="the fit is not touched")
    content = json.loads(Path("w.json").read_text())
    table = content["holdout"]["table"]
    assert [row["targets"] for row in table] == [4, 4, 4, 12] and len(content["holdout"]["groups"]) == 3
    assert table[-1]["initial_mean"] == pytest.approx(content["quality"]["before"]["mean_error"])
    assert table[-1]["fit_mean"] == pytest.approx(content["quality"]["after"]["mean_error"], rel=1e-5)
    assert table[-1]["held_out_mean"] > 0 and content["seconds"]["holdout"] > 0
    page = Path("w.html").read_text()
    assert "Targets left out" in page and "Where the loss is" in page and page.count("<svg") == 5


def test_folds_start_anew_and_are_fitted_as_the_run_is(problem):
    """A resumed run with a budget and a refit has the folds of one that was not interrupted."""
    options = ("--target-records", 20, "--exact", "--refit", 20, "--holdout", 2)
    assert run(*CALIBRATE, "-o", "whole.npy", *options) == 0
    for epochs, more in ((15, ()), (40, ("--resume", *options[-2:]))):
        assert run(*CALIBRATE[:-1], epochs, "-o", "w.npy", *options[:-2], "--checkpoint", "c.st", *more) == 0
    whole, pieces = (json.loads(Path(name).read_text())["holdout"]["table"] for name in ("whole.json", "w.json"))
    assert whole == pieces and [row["records"] for row in whole] == [20, 20, 20]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--holdout 1", "--holdout: expected a whole number from 2, got 1"),
        ("--holdout 13", "--holdout: folds: expected at most the 12 targets, got 13"),
        ("--holdout 4 --holdout-by groups", "--holdout: folds: expected at most the 3 groups, got 4"),
        ("--holdout 3 --holdout-by states", "--holdout-by: invalid choice: 'states'"),
    ],
)
def test_holdout_refused_before_the_run(problem, capsys, arguments, says):
    fails(capsys, *CALIBRATE, "-o", "w.npy", *arguments.split(), says=says)
    assert not Path("w.npy").exists()


def test_the_census_is_said(problem, capsys):
    np.save("w0.npy", np.full(60, 1e6))
    capped = ("--loss", "capped_mape", "--epochs", 1)
    assert run(*CALIBRATE[:-2], "-o", "w.npy", *capped) == 0
    assert "past the cap: 12 of 12 targets have an error of 100% or more, where no gradient" in capsys.readouterr().out
    content = json.loads(Path("w.json").read_text())
    assert content["overall"]["past_cap_after"] == 12 and sum(g["past_cap_after"] for g in content["groups"]) == 12


# -- compare -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(problem):
    for name, price in (("a", 1e-3), ("b", 1e-2)):
        files = ("-o", f"{name}.npy", "--diagnostics", f"{name}_targets.csv", "--lambda-l0", price)
        assert run(*CALIBRATE, *files) == 0


def test_two_runs_side_by_side(two_runs, capsys):
    capsys.readouterr()
    assert run("compare", "a.json", "b.json", "--json", "c.json", "--csv", "c.csv") == 0
    said = capsys.readouterr().out
    a, b = np.load("a.npy"), np.load("b.npy")
    assert f"records: {((a > 0) & (b > 0)).sum()} in both" in said and "option lambda_l0: 0.001 | 0.01" in said
    assert "diagnostics: " not in said, "names of files are no settings"
    content = json.loads(Path("c.json").read_text())
    assert content["weights"]["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert content["quality"][0] == json.loads(Path("a.json").read_text())["quality"]["after"]
    assert content["statistics"][1]["count"] == (b > 0).sum() and content["inputs"] == {}
    rows = read_csv("c.csv")
    errors = [[abs(float(row[f"rel_error_{which}"])) for row in rows] for which in ("first", "second")]
    assert len(rows) == 12 and content["targets"]["first_better"] == sum(x < y for x, y in zip(*errors, strict=True))
    after = [float(row["after"]) for row in read_csv("b_targets.csv")]
    assert [float(row["second"]) for row in rows] == after


def test_runs_that_were_moved_are_found_beside_their_json(two_runs, capsys):
    Path("moved").mkdir()
    for name in ("a.json", "a.npy", "a_targets.csv"):
        shutil.move(name, "moved")
    assert run("compare", "moved/a.json", "b.json", "--csv", "c.csv") == 0
    assert len(read_csv("c.csv")) == 12


def test_other_inputs_are_said(two_runs, capsys):
    rows = read_csv("targets.csv")
    write_csv("targets.csv", tuple(rows[0]), [(*[*row.values()][:1], 50 + k, "g") for k, row in enumerate(rows)])
    assert run(*CALIBRATE, "-o", "d.npy", "--diagnostics", "d.csv") == 0
    capsys.readouterr()
    assert run("compare", "a.json", "d.json") == 0
    said = capsys.readouterr().out
    assert "note: the runs had different files for targets" in said and "met better" not in said
    fails(capsys, "compare", "a.json", "d.json", "--csv", "c.csv", says="--csv: expected two JSON files of runs")


def test_weights_files_are_joined_by_record(problem, capsys):
    write_csv("x.csv", ("household", "weight"), [("h1", 1), ("h2", 2), ("h3", 0)])
    write_csv("y.csv", ("household", "weight"), [("h2", 2), ("h4", 5), ("h1", 1)])
    assert run("compare", "x.csv", "y.csv", "--json", "c.json") == 0
    found = json.loads(Path("c.json").read_text())["weights"]
    assert (found["records"], found["in_both"], found["only_first"], found["only_second"]) == (4, 2, 0, 1)
    np.save("z.npy", np.array([1.0, 2.0, 0.0], np.float32))
    assert run("compare", "x.csv", "z.npy") == 0
    assert "records: 2 in both, 0 only in the first, 0 only in the second (overlap 1.000)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("none.json", "w0.npy", "FIRST: cannot read none.json"),
        ("w0.npy", "none.npy", "SECOND: cannot read none.npy"),
        ("w0.npy", "short.npy", "SECOND: expected the 60 records of w0.npy, got 3 in short.npy"),
        ("w0.npy", "odd.json", "SECOND: odd.json is not the JSON file of a run of l0fast calibrate"),
        ("w0.npy", "text.json", "SECOND: text.json is not the JSON file of a run of l0fast calibrate"),
        ("w0.npy", "negative.npy", "SECOND: expected a vector of finite non-negative weights in negative.npy"),
        ("w0.npy", "table.npy", "SECOND: expected a vector of finite non-negative weights in table.npy"),
        ("w0.npy", "words.npy", "SECOND: expected a vector of finite non-negative weights in words.npy"),
        ("w0.npy", "broken.npy", "SECOND: broken.npy is damaged or not an array"),
        ("w0.npy", "targets.csv", "SECOND: expected a column weight, got name, value, group in targets.csv"),
        ("w0.npy", "twice.csv", "SECOND: expected distinct records, got one twice in twice.csv"),
        ("w0.npy", "notes.txt", "SECOND: expected a .csv or .parquet file, got notes.txt"),
    ],
)
def test_compare_refuses(problem, capsys, first, second, says):
    np.save("short.npy", np.ones(3))
    np.save("negative.npy", -np.ones(60))
    np.save("table.npy", np.ones((60, 2)))
    np.save("words.npy", np.array(["a"] * 60))
    Path("broken.npy").write_bytes(b"\x93NUMPY")
    Path("odd.json").write_text('{"command": "calibrate", "outputs": {"output": 5}, "quality": {}}')
    Path("text.json").write_text("{")
    Path("notes.txt").write_text("weight\n1\n")
    write_csv("twice.csv", ("record", "weight"), [(0, 1), (0, 2)])
    fails(capsys, "compare", first, second, says=says)


def test_compare_never_overwrites_what_it_reads(two_runs, capsys):
    fails(capsys, "compare", "a.json", "b.json", "--json", "b.json", says="--json: b.json is the file of SECOND too")
    assert run("compare", "a.json", "a.json") == 0
