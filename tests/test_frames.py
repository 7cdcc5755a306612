"""Problems from data frames: against plain pandas, from every source, in chunks, and joined back by record id."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from frames_problem import expected, random_frame

from l0fast.calibration.frames import CalibrationProblem, Margins, Target


def dense(problem):
    return problem.matrix.to_scipy().toarray()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 7, 400])
def test_against_pandas(n, seed):
    frame = random_frame(n, seed)
    targets, matrix = expected(frame)
    problem = CalibrationProblem.from_frame(frame, targets, "hh", "w0")
    np.testing.assert_array_equal(dense(problem), matrix)
    np.testing.assert_array_equal(problem.weights, frame.w0)
    assert problem.ids.to_pylist() == list(frame.hh)
    assert problem.unreached == tuple(problem.names[j] for j in np.flatnonzero(~matrix.any(axis=1)))
    assert problem.matrix.values.dtype == torch.float32
    doubles = CalibrationProblem.from_frame(frame, targets, dtype=torch.float64)
    row = targets.index({"measure": "agi", "filter": "", "value": 1.0})
    np.testing.assert_array_equal(dense(doubles)[row], frame.agi)


@pytest.mark.parametrize("chunk_rows", [3, 13, 100, 1000])
def test_every_source_and_chunk_gives_the_same_bits(tmp_path, chunk_rows):
    frame = random_frame(300, 5)
    targets, _ = expected(frame)
    whole = CalibrationProblem.from_frame(frame, targets, "hh", "w0")
    table = pa.Table.from_pandas(frame)
    pieces = pa.concat_tables([table.slice(0, 11), table.slice(11, 200), table.slice(211)])
    sources = [frame, table, pieces, frame.set_axis(np.arange(300)[::-1])]
    for size in (7, 64, 300):
        path = tmp_path / f"{size}.parquet"
        pq.write_table(table, path, row_group_size=size)
        sources.append(path)
    sources += [str(path), frame.astype({"state": "category"}), frame.convert_dtypes(dtype_backend="pyarrow")]
    for source in sources:
        problem = CalibrationProblem.from_frame(source, targets, "hh", "w0", chunk_rows=chunk_rows)
        assert problem.matrix.sha256() == whole.matrix.sha256()
        assert problem.ids.to_pylist() == whole.ids.to_pylist()
        np.testing.assert_array_equal(problem.weights, whole.weights)


def test_counting_alone_needs_no_column(tmp_path):
    frame = random_frame(20)
    frame.to_parquet(tmp_path / "f.parquet")
    for source in (frame, pa.Table.from_pandas(frame), tmp_path / "f.parquet"):
        problem = CalibrationProblem.from_frame(source, Target(1, 20.0), chunk_rows=6)
        np.testing.assert_array_equal(dense(problem), np.ones((1, 20)))
        assert problem.names == ["count"] and problem.ids.to_pylist() == list(range(20))


def test_more_targets_than_16_bits_number():
    frame = pd.DataFrame({"k": np.arange(70_000)})
    margins = Margins("k", frame.assign(value=1.0))
    problem = CalibrationProblem.from_frame(frame, margins, chunk_rows=30_000)
    assert problem.matrix.rows.dtype == torch.int32
    np.testing.assert_array_equal(problem.matrix.rows, frame.k)


def test_targets_in_every_form(tmp_path):
    frame = random_frame(200)
    rows = [
        {"name": "people", "measure": "size", "value": 900.0, "filter": "", "group": "a"},
        {"name": "west", "measure": 1, "value": 80, "filter": "region == 'west' and kids in (1, 2)", "group": "b"},
    ]
    as_frame = pd.DataFrame(rows).assign(weight=[2.0, np.nan], tolerance=[np.nan, 0.01], comment="x")
    as_frame.to_csv(tmp_path / "t.csv", index=False)
    as_frame.assign(measure=as_frame.measure.astype(str)).to_parquet(tmp_path / "t.parquet")
    more = [{**rows[0], "weight": 2.0}, {**rows[1], "tolerance": 0.01}]
    forms = [more, [Target(**row) for row in more], as_frame, tmp_path / "t.csv", str(tmp_path / "t.parquet")]
    problems = [CalibrationProblem.from_frame(frame, form) for form in forms]
    for problem in problems:
        assert problem.names == ["people", "west"] and problem.y.tolist() == [900.0, 80.0]
        assert problem.groups.tolist() == ["a", "b"] and problem.target_scales is None
        assert problem.target_weights.tolist() == [2.0, 1.0] and problem.target_tolerances.tolist() == [0.0, 0.01]
        assert problem.matrix.sha256() == problems[0].matrix.sha256()


def test_margins_become_rows(tmp_path):
    frame = random_frame(300)
    cells = frame.groupby(["state", "kids"]).agg(value=("agi", "sum")).reset_index()
    cells.to_csv(tmp_path / "cells.csv", index=False)
    for totals in (cells, tmp_path / "cells.csv"):
        margins = Margins(["state", "kids"], totals, "agi", filter="size <= 3", group="states")
        problem = CalibrationProblem.from_frame(frame, [Target(1, 300, group="all"), margins], chunk_rows=77)
        assert problem.groups.tolist() == ["all"] + ["states"] * len(cells)
        assert problem.names[1] == f"agi/state={cells.state[0]}/kids={cells.kids[0]}"
        np.testing.assert_allclose(problem.y[1:], cells.value)
        for j, cell in enumerate(cells.itertuples(), start=1):
            meets = (frame.state == cell.state) & (frame.kids == cell.kids) & (frame["size"] <= 3)
            np.testing.assert_array_equal(dense(problem)[j], np.where(meets, frame.agi, 0).astype(np.float32))
    by_one = CalibrationProblem.from_frame(frame, {"by": "kids", "totals": cells.groupby("kids").sum().reset_index()})
    assert by_one.names == [f"count/kids={k}" for k in range(4)]


def test_a_margins_file_keeps_text_that_looks_like_numbers(tmp_path):
    (tmp_path / "m.csv").write_text("fips,value\n01,5\n02,5\n")
    frame = pd.DataFrame({"fips": ["01", "02", "1"]})
    problem = CalibrationProblem.from_frame(frame, Margins("fips", tmp_path / "m.csv"))
    np.testing.assert_array_equal(dense(problem), [[1, 0, 0], [0, 1, 0]])


def test_fit_and_join_back():
    frame = random_frame(400)
    truth = frame.w0 * np.random.default_rng(1).uniform(0.8, 1.2, 400)
    targets = [Target(1, truth.sum(), name="all"), Target("size", (truth * frame["size"]).sum(), name="people")]
    totals = frame.assign(value=truth).groupby("kids")["value"].sum().reset_index()
    problem = CalibrationProblem.from_frame(frame, [*targets, Margins("kids", totals)], "hh", "w0")
    model = problem.fit(epochs=300, lambda_l0=0.0)
    weights = problem.weights_frame(model)
    assert list(weights.columns) == ["hh", "initial_weight", "weight"]
    joined = frame.merge(weights, on="hh", validate="1:1")
    np.testing.assert_array_equal(joined.w0, joined.initial_weight)
    assert abs((joined.weight * joined["size"]).sum() / targets[1].value - 1) < 0.02
    rows = problem.targets_frame(model)
    np.testing.assert_allclose(rows.target, problem.y)
    np.testing.assert_allclose(rows.before, dense(problem).astype(float) @ frame.w0, rtol=1e-6)
    assert rows.after.iloc[1] == pytest.approx((joined.weight * joined["size"]).sum())
    given = np.where(np.arange(400) < 5, 2.0, 0.0)
    active = problem.weights_frame(given, active_only=True)
    assert active.hh.tolist() == frame.hh[:5].tolist() and active.weight.tolist() == [2.0] * 5
    with pytest.raises(ValueError, match=r"model: expected 400 weights, got shape \(3,\)"):
        problem.weights_frame(np.ones(3))


def test_what_targets_say_reaches_fit():
    frame = random_frame(50)
    targets = [Target(1, 100.0, name="a", weight=0.0, group="x"), Target("size", 200.0, name="b", group="y")]
    problem = CalibrationProblem.from_frame(frame, targets, weight="w0")
    rows = problem.targets_frame(problem.fit(epochs=400, lambda_l0=0.0))
    assert rows.after[1] == pytest.approx(200, rel=0.02)
    assert problem.fit_options()["target_weights"].tolist() == [0.0, 1.0]
