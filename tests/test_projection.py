"""How a constrained run ends: records that can carry the mass, and sums of float32 weights that are right."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from model_problem import N_RECORDS, make, survey
from scipy import sparse as sp

from l0fast.calibration import SparseCalibrationWeights, mass_row
from l0fast.calibration.constraints import checked_constraints
from l0fast.calibration.float_total import repair_total
from l0fast.calibration.matrix import pack
from l0fast.calibration.objective import build_objective
from l0fast.calibration.projection import project, records_to_use


def gated(log_alpha, **options) -> SparseCalibrationWeights:
    model = SparseCalibrationWeights(len(log_alpha), beta=0.35, log_alpha_jitter_sd=0, seed=0, **options)
    with torch.no_grad():
        model.log_alpha.copy_(torch.as_tensor(log_alpha, dtype=torch.float32))
    return model


class Budget:
    def __init__(self, target):
        self.target = target


@pytest.mark.parametrize(
    ("log_alpha", "bounds", "used"),
    [
        ([5, 4, 3, -3, -4, -5], (0, 4), [1, 1, 1, 0, 0, 0]),  # 12 >= 6: as it is
        ([5, -3, -4, -5, -6, -7], (0, 2), [1, 1, 1, 1, 0, 0]),  # up to 6.6: the most probable ones
        ([5, -3, -40, -5, -6, -7], (0, 2), [1, 1, 0, 1, 1, 0]),  # but none that is closed for good
        ([5, 4, 3, 2, 1, -5], (2, 9), [1, 1, 0, 0, 0, 0]),  # at least 10: down to 5.4 from the least probable
        ([5, 4, 3, 2, 40, -5], (2, 9), [1, 0, 0, 0, 1, 0]),
    ],
)
def test_records_are_opened_and_closed_by_probability(log_alpha, bounds, used):
    model = gated(log_alpha)
    constraints = checked_constraints(model, bounds=bounds, mass="conserve")
    before = model.log_weight.detach().clone()
    changes = [x > 0 for x in log_alpha] != [bool(x) for x in used]
    if changes:
        with pytest.warns(
            RuntimeWarning, match=r"mass: the bounds of the \d records in use allow a total from .* not 6: "
        ):
            project(model, constraints)
    else:
        project(model, constraints)
    weights = model.get_weights(deterministic=True).detach().double()
    assert (weights > 0).tolist() == [bool(x) for x in used]
    assert float(weights.sum()) == pytest.approx(6, rel=1e-9)
    assert torch.equal(model.log_weight[weights == 0], before[weights == 0])


def test_an_exact_budget_exchanges_as_few_as_it_can():
    model = gated([5, 4, 3, -3, -4, -5])
    high = [1.0, 9, 1, 2, 8, 3]
    constraints = checked_constraints(model, bounds=(0, high), mass="conserve", target_records=3)
    assert records_to_use(model, constraints, Budget(3)).tolist() == [True, True, True, False, False, False]
    high[1] = 1.5
    constraints = checked_constraints(model, bounds=(0, high), mass="conserve", target_records=3)
    with pytest.warns(
        RuntimeWarning, match=r"allow a total from 0 to 3\.\d*, not 6: 1 records were opened and 1 closed"
    ):
        used = records_to_use(model, constraints, Budget(3))
    assert used.tolist() == [False, True, True, False, True, False]
    constraints = checked_constraints(model, bounds=([3, 3, 3, 1, 1, 0], 9), mass="conserve", target_records=3)
    with pytest.warns(RuntimeWarning, match=r"allow a total from 9 to 27, not 6: 2 records were opened and 2 closed"):
        used = records_to_use(model, constraints, Budget(3))
    assert used.tolist() == [False, False, True, True, False, True]


def test_what_no_records_can_carry_changes_nothing():
    model = gated([5, 4, -40, -40])
    constraints = checked_constraints(model, bounds=(0, 1.5), mass="conserve", log_alpha=torch.zeros(4))
    before = model.log_weight.detach().clone(), model.log_alpha.detach().clone()
    with pytest.raises(ValueError, match=r"mass: the bounds of no records were found to allow a total of 4"):
        project(model, constraints)
    assert torch.equal(before[0], model.log_weight) and torch.equal(before[1], model.log_alpha)


def test_weights_are_scaled_and_cut():
    """w = clip(c v, low, high) with one c: records between their bounds keep their ratios."""
    model = make(use_gates=False, init_weights=np.geomspace(0.01, 10, N_RECORDS))
    with torch.no_grad():
        model.log_weight += 1.0
    constraints = checked_constraints(model, bounds=(0.02, 4), mass="conserve")
    v = torch.exp(model.log_weight.detach()).double()
    project(model, constraints)
    w = model.get_weights().detach().double()
    inside = (w > 0.02001) & (w < 3.999)
    assert 0 < inside.sum() < N_RECORDS and (w[v == v.max()] < 4.0000001).all()
    c = (w / v)[inside]
    torch.testing.assert_close(c, c[:1].expand_as(c), rtol=1e-6, atol=0)
    assert (w[~inside & (v > 1)] > 3.999).all() and (w[~inside & (v < 1)] < 0.02001).all()


@pytest.mark.parametrize("count", [100, 1000, 100_000])
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 1e6])
def test_sums_of_float32_are_repaired(count, size):
    generator = torch.Generator().manual_seed(count)
    theta = (torch.randn(count + 50, generator=generator) * 0.7 + np.log(size)).float()
    records = torch.randperm(count + 50, generator=generator)[:count]
    low, high = theta[records] - 1e-4, theta[records] + 1e-4
    high[::3] = theta[records][::3]  # some may not grow
    total = float(torch.exp(theta[records]).double().sum()) * (1 + 3e-8)
    before = theta.clone()
    repair_total(theta, records, low, high, total)
    weights = torch.exp(theta)[records].double()
    assert abs(float(weights.sum()) / total - 1) <= 1e-9
    assert (theta[records] >= low).all() and (theta[records] <= high).all()
    others = torch.ones(count + 50, dtype=torch.bool)
    others[records] = False
    assert torch.equal(theta[others], before[others])
    assert float((theta - before).abs().max()) < 1e-5


def test_few_records_say_what_float32_allows():
    theta = torch.log(torch.tensor([1.5, 1.25]))
    unlimited = torch.full((2,), 1.0)
    with pytest.warns(
        RuntimeWarning, match=r"mass: float32 weights of 2 records .* come no closer than 2\.75000011921 to 2\.7500001"
    ):
        repair_total(theta, torch.arange(2), -unlimited, unlimited, 2.7500001)
    assert abs(float(torch.exp(theta).double().sum()) - 2.7500001) < 1.2e-7 / 2


@pytest.mark.parametrize("n_targets", [30, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_row_is_the_last_one(n_targets, dtype, monkeypatch):
    monkeypatch.setattr(mass_row, "_CHUNK", 13)
    M = sp.random(n_targets, 50, density=300 / n_targets / 50, format="lil", random_state=3)
    M[n_targets - 1, 4] = 2.0
    for matrix in (M, sp.csc_matrix(M.shape)):
        values = torch.arange(1, 51).to(dtype)
        longer = mass_row.with_row(pack(matrix, dtype), values)
        assert longer.sha256() == pack(sp.vstack([matrix, values.numpy()[None]]), dtype).sha256()


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("mse", {}),
        ("relative", {"target_weights": 3.0}),
        ("relative_epsilon", {"target_tolerances": 0.01}),
        ("capped_mape", {"loss_cap": 0.5}),
    ],
)
def test_total_costs_a_multiple_of_all_targets(loss, options):
    M, y = survey()
    objective = build_objective(y, len(y), loss, **options)
    matrix, longer = mass_row.with_mass_row(pack(M), objective, 400.0)
    untouched, _ = longer.evaluate(torch.cat([torch.from_numpy(y), torch.tensor([0.0])]))
    alone, _ = objective.evaluate(torch.zeros(len(y)))
    assert float(untouched) == pytest.approx(mass_row.SHARE * float(alone), rel=0.1)
    assert float(longer.evaluate(torch.cat([torch.from_numpy(y), torch.tensor([400.0])]))[0]) == 0
    assert matrix.n_targets == len(y) + 1


def test_benchmark_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import bench_constraints

    out = tmp_path / "constraints.csv"
    arguments = ["--problem", "tiny", "--records", "1600", "--ratio", "5", "--epochs", "300", "--out", str(out)]
    assert bench_constraints.main(arguments) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows] == ["dense"] * 3 + ["gates", "refit"] * 3
    for row in rows:
        if row["constraints"] != "free":
            assert abs(float(row["total_change"])) < 1e-9
        if "ratio 5" in row["constraints"]:
            assert float(row["largest_change"]) <= 5 and float(row["mean_error"]) < 0.1
