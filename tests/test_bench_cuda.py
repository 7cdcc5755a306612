"""The GPU benchmark at toy sizes on the CPU: it runs, checks before it times, counts bytes and judges rightly."""

import csv
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import bench_cuda
import cuda_agreement
import cuda_calibration
import cuda_problems
from agreement import DisagreementError
from cuda_bytes import elementwise_bytes, epoch_bytes
from cuda_report import CALIBRATIONS, Report, verdicts
from cuda_timing import QUICK, Budget, Timer, measure

from l0fast import ops

CPU = torch.device("cpu")
NEEDS_L0 = pytest.mark.skipif(importlib.util.find_spec("l0") is None, reason="l0-python not installed")
OPS, MODES = ("hard_concrete", "l0_penalty", "gated_weight"), ("forward", "backward", "step")
ELEMENTWISE = {(op, mode) for op in OPS for mode in MODES}


def quick(tmp_path, *more):
    return bench_cuda.main(["--device", "cpu", "--quick", "--out", str(tmp_path / "cuda.csv"), *more])


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@NEEDS_L0
def test_the_whole_script_runs_at_toy_sizes(tmp_path, native, capsys, monkeypatch):
    (tmp_path / "back").mkdir()
    monkeypatch.setenv("OUT", str(tmp_path / "back"))
    assert quick(tmp_path) == 0
    rows = read(tmp_path / "cuda.csv")
    assert rows == read(tmp_path / "back" / "cuda.csv")
    found = {(row["case"], row["mode"], row["contender"]) for row in rows}
    expected = {(*key, name) for key in ELEMENTWISE for name in ("l0fast", "l0-python", "copy")}
    layers = [f"step {precision}" for precision in ("fp32", "bf16 autocast")]
    expected |= {("linear48", mode, name) for mode in layers for name in ("dense", "l0fast", "l0-python")}
    states = ("open", "closed90")
    expected |= {(case, state, name) for case in CALIBRATIONS for state in states for name in ("l0fast", "l0-python")}
    assert found == expected and len(rows) == len(expected)
    for row in rows:
        assert 0 < float(row["p20_us"]) <= float(row["median_us"]) <= float(row["p80_us"])
        assert (row["share_of_copy"] != "") == (row["bytes"] != "")
    printed = capsys.readouterr().out
    assert printed.count("| toy size:") == 7 and printed.count("\nreached ") == 2
    assert printed.rstrip().splitlines()[-1].startswith("not measured | 13k x 5.2m: >= 20x")


def test_without_a_device_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_cuda.main([]) == 2
    assert capsys.readouterr().err.startswith("no CUDA device here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "gates"], "got gates"),
        (["--device", "xpu"], "got xpu"),
        (["--device", "cpu"], "expected --quick with cpu"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        bench_cuda.main(arguments)
    assert message in capsys.readouterr().err


# -- checks that must fail --------------------------------------------------------------------------------------------


def wrong(name, change):
    right = getattr(ops, name)
    return lambda *arguments, **options: change(right(*arguments, **options))


PLANTED = [
    ("hard_concrete", lambda z: z * 1.0001, "elementwise", "hard_concrete: output from element 0"),
    ("l0_penalty", lambda p: p * 1.0001, "elementwise", "l0_penalty: "),
    ("gated_weight", lambda r: (r[0], r[1] * 1.0001), "elementwise", "gated_weight: "),
    ("gated_totals", lambda r: (r[0] * 1.001, r[1]), "13k x 5.2m", "calibration of 13k x 5.2m, open: totals"),
    ("calibration_epochs_", lambda m: m * 1.001, "agreement", "100 epochs, device: losses"),
]


@pytest.mark.parametrize(("name", "change", "section", "message"), PLANTED, ids=[p[0] for p in PLANTED])
def test_a_wrong_op_ends_the_run_with_its_name(tmp_path, native, capsys, monkeypatch, name, change, section, message):
    monkeypatch.setattr(ops, name, wrong(name, change))
    assert quick(tmp_path, "--only", section) == 1
    assert f"check failed: {message}" in capsys.readouterr().err
    rows = read(tmp_path / "cuda.csv") if (tmp_path / "cuda.csv").exists() else []
    assert name not in {row["case"] for row in rows} and not any(row["section"] == "calibration" for row in rows)


def test_a_wrong_layer_is_not_timed(tmp_path, native, capsys, monkeypatch):
    import l0fast

    right = l0fast.L0Linear.forward
    monkeypatch.setattr(l0fast.L0Linear, "forward", lambda layer, x: right(layer, x) * 1.001)
    assert quick(tmp_path, "--only", "layers") == 1
    assert "check failed: L0Linear fp32: output is off by 1.0e-03" in capsys.readouterr().err


def test_runs_that_differ_are_found(tmp_path, native, monkeypatch):
    problem = cuda_problems.random_problem("toy", 50, 300, 5, CPU)
    report = Report(tmp_path / "x.csv", {})
    cuda_agreement.check_same_bits(report, problem)
    start = cuda_calibration.Ours.__init__

    def drifting(run, problem, state, count=[0]):  # noqa: B006 (kept between runs)
        start(run, problem, state)
        count[0] += 1
        run.log_weight[0] += 1e-6 * count[0]

    monkeypatch.setattr(cuda_calibration.Ours, "__init__", drifting)
    with pytest.raises(DisagreementError, match="of two runs of the same seed differ"):
        cuda_agreement.check_same_bits(report, problem)
    assert report.findings[cuda_agreement.SAME_BITS][0] is False


# -- problems and bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "per_column"), [(40_000, 3), (90, 90), (1000, 60)])
def test_random_rows_are_sorted_distinct_and_spread(m, per_column):
    problem = cuda_problems.random_problem("toy", m, 600, per_column, CPU)
    rows = problem.rows.to(torch.int64).view(600, per_column)
    assert rows.min() >= 0 and rows.max() < m and (rows.diff(dim=1) > 0).all()
    assert abs(rows.double().mean().item() / (m - 1) - 0.5) < 0.04
    weight = torch.rand(600, dtype=torch.float64)
    dense = torch.zeros(m, 600, dtype=torch.float64)
    dense[rows.flatten(), torch.arange(600).repeat_interleave(per_column)] = problem.values.double()
    torch.testing.assert_close(cuda_problems.plain_totals(problem, weight), dense @ weight)
    pull = torch.rand(m, dtype=torch.float64)
    torch.testing.assert_close(cuda_problems.plain_gradient(problem, pull), dense.t() @ pull)
    if m < 10_000:
        torch.testing.assert_close(cuda_calibration.coo_of(problem).to_dense().double(), dense)


def test_blocks_cover_every_column_once(monkeypatch):
    monkeypatch.setattr(cuda_problems, "CHUNK", 70)
    problem = cuda_problems.random_problem("toy", 50, 101, 5, CPU)
    blocks = list(problem.blocks())
    assert blocks[0][0] == 0 and blocks[-1][1] == 101 and len(blocks) > 5
    assert all(a[1] == b[0] and a[3] == b[2] for a, b in pairwise(blocks))


def test_the_first_columns_are_a_problem_of_their_own():
    problem = cuda_problems.random_problem("toy", 50, 100, 5, CPU)
    part = problem.first_columns(30)
    assert part.n_records == 30 and part.values.numel() == 150
    weight = torch.rand(100, dtype=torch.float64)
    weight[30:] = 0
    expected = cuda_problems.plain_totals(problem, weight)
    torch.testing.assert_close(cuda_problems.plain_totals(part, weight[:30]), expected)


def test_bytes_by_hand():
    assert elementwise_bytes("gated_weight", "step", 10) == 10 * 4 * 8
    assert elementwise_bytes("hard_concrete", "forward", 10) == elementwise_bytes("copy", "forward", 10) == 80
    assert elementwise_bytes("l0_penalty", "step", 10) == 10 * 4 * 3
    problem = cuda_problems.random_problem("toy", 50, 100, 5, CPU)
    matrix, state = 500 * (2 + 4) + 101 * 8, 100 * 4 * 14
    assert epoch_bytes(problem, 1.0) == 2 * matrix + state
    assert epoch_bytes(problem, 0.0) == state


# -- time and judgement -----------------------------------------------------------------------------------------------


def test_sections_share_what_is_left():
    now = [0.0]
    budget = Budget(100.0, {"a": 1, "b": 1, "c": 2}, clock=lambda: now[0])
    assert budget.begin("a") == 25
    now[0] = 5.0  # a was early
    assert budget.begin("b") == pytest.approx(95 / 3)
    now[0] = 90.0  # b was late
    assert budget.left() == 0 and budget.begin("c") == 10


def test_a_slow_contender_is_cut_and_the_others_are_not(monkeypatch):
    class Fake(Timer):
        def seconds(self, work, calls=1):
            work()
            return {"quick": 1e-6, "slow": 10.0}[order[-1]]

    order = []
    works = {name: lambda name=name: order.append(name) for name in ("quick", "slow")}
    samples = measure(Fake(CPU, QUICK), works, seconds=1.0)
    assert samples["slow"] == [10.0] and samples["quick"] == [1e-6] * QUICK.least


def filled(tmp_path, share=0.85, roofline=0.6, closed=0.3, peer=25.0):
    report = Report(tmp_path / f"{share}{roofline}{closed}{peer}.csv", {"date": "now"}, copy_bandwidth=1e9)
    for op in OPS:
        for mode in ("forward", "backward"):
            report.add("elementwise", op, mode, {"l0fast": [1e-3] * 5}, lambda name: round(share * 1e6))
    for case in CALIBRATIONS:
        for state, factor in (("open", 1.0), ("closed90", closed)):
            samples = {"l0fast": [1e-3 * factor] * 5, "l0-python": [1e-3 * factor * peer] * 5}
            report.add("calibration", case, state, samples, lambda name: round(roofline * 1e6))
    return report


@pytest.mark.parametrize(
    ("numbers", "reached"),
    [
        ({}, [True] * 7),
        ({"share": 0.79}, [False] * 2 + [True] * 5),
        ({"roofline": 0.49}, [True] * 2 + [False] + [True] * 4),
        ({"closed": 0.36}, [True] * 3 + [False] + [True] * 3),
        ({"peer": 19.0}, [True] * 4 + [False] * 3),
        ({"share": 3.0}, [None] * 2 + [True] * 5),  # nothing is three times as fast as a copy
    ],
)
def test_verdicts(tmp_path, numbers, reached):
    assert [verdict.reached for verdict in verdicts(filled(tmp_path, **numbers))] == reached


def test_nothing_measured_is_not_reached(tmp_path):
    assert {verdict.reached for verdict in verdicts(Report(tmp_path / "x.csv", {}))} == {None}


def test_a_smaller_equal_size_is_said(tmp_path):
    report = Report(tmp_path / "x.csv", {"date": "now"}, copy_bandwidth=1e9)
    report.add("calibration", CALIBRATIONS[2], "open, equal size", {"l0fast": [1e-3] * 5, "l0-python": [0.5] * 5})
    last = verdicts(report)[-1]
    assert last.reached and "equal, smaller size" in last.words


@NEEDS_L0
def test_l0_python_is_measured_at_the_largest_size_that_it_can_run(tmp_path, native, monkeypatch):
    problem = cuda_problems.random_problem(CALIBRATIONS[2], 130, 4000, 8, CPU)
    coo_of = cuda_calibration.coo_of

    def out_of_memory(part):
        if part.n_records == 4000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return coo_of(part)

    monkeypatch.setattr(cuda_calibration, "SMALL_NNZ", 0)
    monkeypatch.setattr(cuda_calibration, "coo_of", out_of_memory)
    torch.set_num_threads(1)
    report, budget = Report(tmp_path / "x.csv", {"date": "now"}, copy_bandwidth=1e9), Budget(600.0, {"a": 1})
    budget.begin("a")
    cuda_calibration.run_problem(report, Timer(CPU, QUICK), budget, problem)
    rows = {(row["mode"], row["contender"]): row["note"] for row in report.rows}
    for state in ("open", "closed90"):
        assert rows.pop((state, "l0fast")) == ""
        for name in ("l0fast", "l0-python"):
            assert rows.pop((f"{state}, equal size", name)) == "1/4 of records"
    assert not rows and "cannot run 1/1 of it: CUDA out of memory" in report.notes[0]
