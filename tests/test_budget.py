"""A record budget: how many records a run ends with, its multiplier, and what it refuses."""

import csv
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from model_problem import N_RECORDS, make, survey
from scipy import sparse as sp

from l0fast.calibration import SparseCalibrationWeights
from l0fast.calibration.budget import most_probable

SHAPES = [
    (20, 300, 0.2, 60),
    (100, 1000, 0.05, 500),
    (30, 400, 0.2, 40),
    (60, 3000, 0.02, 150),
    (200, 2000, 0.03, 600),
    (10, 5000, 0.1, 100),
    (150, 800, 0.1, 200),
    (40, 1500, 0.5, 900),
    (80, 600, 0.05, 540),
    (5, 250, 0.3, 10),
]
"""Targets, records, density, budget."""
OPTIONS = {"lr": 0.1, "loss_type": "relative"}


def problem(n_targets, n_records, density, seed):
    generator = np.random.default_rng(seed)
    M = sp.random(n_targets, n_records, density=density, format="csr", random_state=generator)
    M = (M @ sp.diags(generator.lognormal(0, 1, n_records))).tocsr()
    return M, M @ generator.lognormal(0, 0.7, n_records)


def active(model) -> int:
    return model.get_active_weights()["count"]


@pytest.mark.parametrize("case", range(len(SHAPES)))
def test_one_run_ends_within_one_percent(case):
    *shape, k = SHAPES[case]
    M, y = problem(*shape, seed=100 + case)
    model = SparseCalibrationWeights(shape[1], beta=0.35, init_keep_prob=0.9, seed=case, log_weight_jitter_sd=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # steering itself comes within 5 %
        model.fit(M, y, target_records=k, epochs=600, **OPTIONS)
    assert abs(active(model) - k) <= max(1, 0.01 * k)
    errors = np.abs(model.predict(M).numpy() / y - 1)
    assert errors.mean() < 0.06, "the budget was not met at the targets' expense"


@pytest.mark.parametrize("case", range(len(SHAPES)))
def test_exact_is_exact_however_short_the_run(case):
    *shape, k = SHAPES[case]
    M, y = problem(*shape, seed=100 + case)
    model = SparseCalibrationWeights(shape[1], beta=0.35, init_keep_prob=0.9, seed=case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(M, y, target_records=k, exact=True, epochs=100, **OPTIONS)
    assert active(model) == k
    kept = set(model.get_active_weights()["indices"].tolist())
    order = model.log_alpha.detach().numpy().argsort(kind="stable")[::-1]
    assert kept == set(order[:k].tolist()), "the most probable ones"


def test_ties_go_by_index():
    assert most_probable(torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0]), 3).tolist() == [1, 2, 3]
    many = torch.arange(10_000) % 2  # long enough for a sort that is not stable to show
    assert most_probable(many.float(), 3000).tolist() == list(range(1, 6000, 2))


def test_more_than_the_loss_wants_can_be_asked_for():
    M, y = survey()
    model = make(init_keep_prob=0.1)
    with pytest.warns(RuntimeWarning, match=r"target_records: 0 records were in use after epoch 50; .* to get 390"):
        model.fit(M, y * 0, target_records=390, exact=True, epochs=50, lr=0.1)
    assert active(model) == 390


@pytest.mark.parametrize("pieces", [(100, 100), (7, 40, 3, 101, 49)])
def test_a_run_in_pieces_has_the_bits_of_one_run(pieces):
    M, y = survey()
    options = {**OPTIONS, "target_records": 80}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        one = make(log_weight_jitter_sd=0.05).fit(M, y, epochs=200, **options)
        many = make(log_weight_jitter_sd=0.05)
        for k, epochs in enumerate(pieces):
            many.fit(M, y, epochs=epochs, resume=k > 0, exact=True, **options)
            assert active(many) == 80
        many.fit(M, y, epochs=0, resume=True, **options)
    assert torch.equal(one.log_weight, many.log_weight) and torch.equal(one.log_alpha, many.log_alpha)
    for name, values in one.history.items():
        np.testing.assert_array_equal(values, many.history[name])


def test_checkpoint_carries_the_multiplier(tmp_path):
    M, y = survey()
    path = tmp_path / "run.safetensors"
    options = {**OPTIONS, "target_records": 80, "exact": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        make().fit(M, y, epochs=75, checkpoint=path, **options)
        loaded = make().load_checkpoint(path)
        assert active(loaded) == 80
        with pytest.raises(ValueError, match=r"target_records is not that of the saved run \(80 there, 79 here\)"):
            make().load_checkpoint(path).fit(M, y, resume=True, **{**options, "target_records": 79})
        loaded.fit(M, y, epochs=125, resume=True, **options)
        whole = make().fit(M, y, epochs=200, **options)
    assert torch.equal(loaded.log_weight, whole.log_weight) and torch.equal(loaded.log_alpha, whole.log_alpha)
    np.testing.assert_array_equal(loaded.history["lambda_l0"], whole.history["lambda_l0"])


def test_history_has_the_multiplier():
    M, y = survey()
    prices = make().fit(M, y, target_records=80, epochs=300, **OPTIONS).history["lambda_l0"]
    blocks = prices.reshape(-1, 10)
    assert (blocks == blocks[:, :1]).all(), "it changes every ten epochs"
    assert blocks[0, 0] == 0 and len(np.unique(prices)) > 5
    assert (make().fit(M, y, lambda_l0=0.5, epochs=3).history["lambda_l0"] == 0.5).all()


def test_share_is_a_price_for_all_records():
    M, y = survey()
    share = make().fit(M, y, lambda_share=0.04, epochs=20, **OPTIONS)
    price = make().fit(M, y, lambda_l0=0.04 / N_RECORDS, epochs=20, **OPTIONS)
    assert torch.equal(share.log_alpha, price.log_alpha)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ({}, dict(target_records=0), ValueError, r"target_records: expected 1 to 400 records, got 0"),
        ({}, dict(target_records=401), ValueError, r"target_records: expected 1 to 400 records, got 401"),
        ({}, dict(target_records=2.0), TypeError, r"target_records: expected an int, got float"),
        ({}, dict(target_records=True), TypeError, r"target_records: expected an int, got bool"),
        ({}, dict(target_records=9, lambda_l0=0.01), ValueError, r"target_records: expected it alone, got lambda_l0"),
        ({}, dict(target_records=9, lambda_share=1), ValueError, r"target_records: .* got lambda_share too"),
        ({}, dict(lambda_share=1, lambda_l0=0.1), ValueError, r"lambda_share: expected it alone, got lambda_l0"),
        ({}, dict(lambda_share=-1), ValueError, r"lambda_share: expected a finite non-negative number, got -1"),
        ({}, dict(lambda_share="1"), TypeError, r"lambda_share: expected a number, got str"),
        ({}, dict(exact=True), ValueError, r"exact: expected target_records with it, got None"),
        ({}, dict(target_records=9, exact=1), TypeError, r"exact: expected True, False or 'sampled', got int"),
        (dict(use_gates=False), dict(target_records=9), ValueError, r"target_records: .* got use_gates=False"),
        (
            dict(init_keep_prob=[1.0] * 10 + [0.0] * 10 + [0.5] * 380),
            dict(target_records=9),
            ValueError,
            r"target_records: expected 10 to 390 records \(the other gates are always .*\), got 9",
        ),
    ],
)
def test_refused_by_name_before_anything_changes(model, options, error, message):
    M, y = survey()
    model = make(**{"log_weight_jitter_sd": 0.1, **model})
    before = model.log_weight.clone(), model.log_alpha.clone()
    with pytest.raises(error, match=message):
        model.fit(M, y, **options)
    assert torch.equal(before[0], model.log_weight) and torch.equal(before[1], model.log_alpha)
    assert model.epoch == 0


def test_overridden_methods_are_refused():
    class Own(SparseCalibrationWeights):
        def get_l0_penalty(self):
            return super().get_l0_penalty()

    with pytest.raises(ValueError, match=r"target_records: expected no overridden methods, got those of Own"):
        Own(N_RECORDS).fit(*survey(), target_records=9)


@pytest.mark.parametrize("refit", [False, True])
def test_path_goes_from_large_to_small(refit):
    M, y = survey()
    model = make()
    points = model.path([300, 150, 60], M, y, epochs=300, exact=True, refit=refit, **OPTIONS)
    assert [(p.target, p.records) for p in points] == [(300, 300), (150, 150), (60, 60)]
    assert model.epoch == 900
    for above, below in itertools.pairwise(points):
        assert above.ess > below.ess
    last = points[-1]
    np.testing.assert_array_equal(last.weights, model.get_weights(deterministic=True).detach().numpy())
    errors = np.abs(M @ last.weights.astype(float) / y - 1)
    assert last.mean_error == pytest.approx(errors.mean(), rel=1e-3, abs=1e-6)
    assert last.loss == pytest.approx(
        np.square((M @ last.weights.astype(float) - y) / (y + 1)).sum(), rel=0.1, abs=1e-9
    )


def test_refitting_a_path_leaves_its_gates_alone():
    M, y = survey()
    plain = make().path([200, 60], M, y, epochs=200, exact=True, **OPTIONS)
    refitted = make().path([200, 60], M, y, epochs=200, exact=True, refit=True, **OPTIONS)
    for a, b in zip(plain, refitted, strict=True):
        assert (a.weights.nonzero()[0] == b.weights.nonzero()[0]).all() and b.loss <= a.loss


@pytest.mark.parametrize(
    ("records", "options", "error", "message"),
    [
        ([], {}, ValueError, r"records: expected at least one budget"),
        (5, {}, TypeError, r"records: expected a list of ints, got int"),
        ([5, 5], {}, ValueError, r"records: expected budgets that decrease, got 5 after 5"),
        ([500, 5], {}, ValueError, r"target_records: expected 1 to 400 records, got 500"),
        ([50, 5], dict(lambda_l0=1.0), ValueError, r"lambda_l0: not an option of path"),
        ([50, 5], dict(resume=True), ValueError, r"resume: not an option of path"),
    ],
)
def test_bad_paths(records, options, error, message):
    with pytest.raises(error, match=message):
        make().path(records, *survey(), **options)


def test_benchmark_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import bench_budget

    out = tmp_path / "budget.csv"
    arguments = ["--problem", "tiny", "--records", "800", "--epochs", "400", "--out", str(out)]
    assert bench_budget.main(arguments) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows] == ["gates", "refit", "random subset, refit"]
    assert all(abs(int(row["records"]) - 800) <= 8 for row in rows)
    assert float(rows[1]["mean_error"]) < float(rows[0]["mean_error"])


@pytest.mark.parametrize("name", ["f.svg", "f.png"])
def test_frontier_is_drawn(tmp_path, name):
    figures = pytest.importorskip("l0fast.calibration.report_figures")
    points = make().path([200, 60], *survey(), epochs=300, **OPTIONS)
    figures.plot_frontier(points, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 5000
    with pytest.raises(ValueError, match="points: expected at least one"):
        figures.plot_frontier([], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
