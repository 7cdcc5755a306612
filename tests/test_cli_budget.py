"""Record budgets and refits from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_problem import CALIBRATE, fails, problem_folder, run  # noqa: F401 - a fixture


def test_exact_budget_and_refit(problem, capsys):
    many = (*CALIBRATE[:-1], 300)
    assert run(*many, "-o", "plain.npy", "--target-records", 15, "--exact") == 0
    assert run(*many, "-o", "w.npy", "--target-records", 15, "--exact", "--refit", 200) == 0
    said = capsys.readouterr().out
    assert "budget 15: 15 records in use, price of a record " in said
    assert "refit of 15 records: mean relative error " in said and " s for 200 epochs" in said
    plain, weights = np.load("plain.npy"), np.load("w.npy")
    assert (weights > 0).sum() == 15 and ((weights > 0) == (plain > 0)).all() and (weights != plain).any()
    before, after = (json.loads(Path(name).read_text()) for name in ("plain.json", "w.json"))
    assert after["quality"]["after"]["mean_error"] < before["quality"]["after"]["mean_error"]
    assert after["options"]["target_records"] == 15 and after["options"]["lambda_l0"] is None
    assert after["options"]["exact"] and after["options"]["refit"] == 200
    assert set(after["seconds"]) == {"read", "fit", "refit", "total"}


def test_a_resumed_budget_equals_one_run(problem):
    options = ("--target-records", 20, "--refit", 50)
    assert run(*CALIBRATE[:-1], 200, "-o", "whole.npy", *options) == 0
    for epochs, more in ((120, ()), (200, ("--resume",))):
        pieces = ("--checkpoint", "run.safetensors", *more)
        assert run(*CALIBRATE[:-1], epochs, "-o", "pieces.npy", *pieces, *options) == 0
    np.testing.assert_array_equal(np.load("pieces.npy"), np.load("whole.npy"))


def test_a_share_is_the_price_of_all_records(problem):
    assert run(*CALIBRATE, "-o", "share.npy", "--lambda-share", 0.6) == 0
    assert run(*CALIBRATE, "-o", "price.npy", "--lambda-l0", 0.01) == 0
    np.testing.assert_array_equal(np.load("share.npy"), np.load("price.npy"))
    options = json.loads(Path("share.json").read_text())["options"]
    assert options["lambda_share"] == 0.6 and options["lambda_l0"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--target-records 9 --lambda-l0 0.001", "--target-records: expected it without --lambda-l0, which it sets"),
        ("--target-records 61", "target_records: expected 1 to 60 records, got 61"),
        ("--target-records 0", "--target-records: expected a whole number from 1, got 0"),
        ("--exact", "--exact: expected --target-records with it"),
        ("--target-records 9 --no-gates", "--target-records: expected it without --no-gates"),
        ("--refit 9 --no-gates", "--refit: expected it without --no-gates"),
        ("--target-records 9 --lambda-share 1", "--target-records: expected it without --lambda-share"),
        ("--lambda-share 1 --lambda-l0 1", "--lambda-share: expected it without --lambda-l0"),
        ("--lambda-share -1", "lambda_share: expected a finite non-negative number, got -1.0"),
        ("--refit 9 --keep-prob 0", "refit: expected records in use, got none"),
    ],
)
def test_refused(problem, capsys, options, says):
    fails(capsys, *CALIBRATE, "-o", "w.npy", *options.split(), says=says)
