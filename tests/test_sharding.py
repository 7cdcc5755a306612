"""Shards, what is read and drawn for them, and groups of one process; runs of several are in test_processes.py."""

import threading
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from model_problem import FIT, N_RECORDS, N_TARGETS, make

from l0fast.calibration import SparseCalibrationWeights
from l0fast.calibration.budget import most_probable
from l0fast.calibration.row_facts import canonical, row_facts
from l0fast.calibration.sharding import Shard, gathered_weights, npz, shard_bounds
from l0fast.calibration.sharding.bounds import equal_shard
from l0fast.calibration.sharding.facts import merged_facts
from l0fast.calibration.sharding.selection import most_probable_of_all

MODEL = {"beta": 0.35, "init_keep_prob": 0.9, "log_weight_jitter_sd": 0.05, "seed": 5}


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def in_threads(size: int, task):
    """The results of task(group) for each rank of a group whose processes are threads."""
    barrier, slots, results = threading.Barrier(size, timeout=20), [None] * size, [None] * size

    class Group:
        def __init__(self, rank):
            self.rank, self.size, self.is_first = rank, size, rank == 0

        def _exchange(self, x):
            slots[self.rank] = x
            barrier.wait()
            everything = list(slots)
            barrier.wait()
            return everything

        def sum(self, *counts):
            return tuple(np.sum(self._exchange(counts), axis=0).tolist())

        def reduced(self, tensor, how):
            stacked = torch.stack(self._exchange(tensor))
            return stacked.sum(0) if how == "sum" else getattr(stacked, f"a{how}")(0)

        def gather(self, tensor):
            everything = self._exchange(tensor)
            return torch.cat(everything) if self.is_first else None

    def run(rank):
        results[rank] = task(Group(rank))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


# -- bounds -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60), st.integers(1, 60), st.sampled_from([0.0, 7.0, 300.0]))
def test_shards_cover_all_records_and_cost_the_same(lengths, world_size, record_cost):
    world_size = min(world_size, len(lengths))
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    shards = shard_bounds(indptr, world_size, record_cost)
    assert [s.first for s in shards] == [0, *(s.end for s in shards[:-1])] and shards[-1].end == len(lengths)
    assert all(s.size >= 1 and s.n_total == len(lengths) for s in shards)
    cost = np.array(lengths) + record_cost
    ideal = cost.sum() / world_size
    if len(lengths) >= 2 * world_size and cost.min() > 0 and cost.max() <= ideal / 2:  # no record spoils it
        assert max(cost[s.slice].sum() for s in shards) <= ideal + cost.max()


def test_shards_follow_nonzeros_not_records():
    lengths = np.r_[np.full(100, 900), np.full(900, 1)]
    first, second = shard_bounds(np.r_[0, lengths.cumsum()], 2, record_cost=0)
    assert (first.size, second.size) == (51, 949) or (first.size, second.size) == (50, 950)
    assert [s.size for s in shard_bounds(np.zeros(11, dtype=int), 2)] == [5, 5]
    assert [s.size for s in shard_bounds(np.zeros(11, dtype=int), 2, record_cost=0)] == [5, 5]
    assert [equal_shard(10, rank, 3) for rank in range(3)] == [Shard(0, 3, 10), Shard(3, 3, 10), Shard(6, 4, 10)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 2, 1], 1), "indptr: expected a non-decreasing"),
        (([0.0, 1.0], 1), "indptr: expected"),
        (([0], 1), "indptr: expected"),
        (([0, 1, 2], 3), "world_size: expected 1 to 2 processes for 2 records, got 3"),
        (([0, 1, 2], 0), "world_size: expected 1 to 2"),
        (([0, 1, 2], 1, -1.0), "record_cost: expected a finite non-negative number, got -1"),
    ],
)
def test_bad_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        shard_bounds(*arguments)


def test_bad_shards_are_refused():
    with pytest.raises(ValueError, match="shard: expected at least one record of 10, got 3 from record 8"):
        Shard(8, 3, 10)
    with pytest.raises(ValueError, match="got 0 from record 0"):
        Shard(0, 0, 10)
    with pytest.raises(TypeError, match="shard: expected first to be an int, got float"):
        Shard(0.5, 1, 10)
    with pytest.raises(ValueError, match=r"shard: expected n_features \(4\) records, got records 0 to 4 of 10"):
        SparseCalibrationWeights(4, shard=Shard(0, 5, 10))
    with pytest.raises(TypeError, match="shard: expected a Shard or None, got tuple"):
        SparseCalibrationWeights(4, shard=(0, 4))
    with pytest.raises(ValueError, match="world_size: expected 1 to 2 processes for 2 records, got 3"):
        equal_shard(2, 0, 3)


# -- what a shard draws -------------------------------------------------------------------------------------------


def test_shards_start_and_draw_as_one_model_does(problem):
    M, _ = problem
    whole = make(**MODEL)
    cuts = [Shard(0, 7, N_RECORDS), Shard(7, 250, N_RECORDS), Shard(257, 143, N_RECORDS)]
    models = [SparseCalibrationWeights(s.size, shard=s, **MODEL) for s in cuts]
    assert torch.equal(torch.cat([m.log_alpha for m in models]), whole.log_alpha)
    assert torch.equal(torch.cat([m._normal() for m in models]), whole._normal()), "log_weight's jitter"
    assert torch.equal(torch.cat([m.get_weights() for m in models]), whole.get_weights()), "a draw of the gates"
    totals = sum(m.forward(M.tocsc()[:, s.slice]).double() for m, s in zip(models, cuts, strict=True))
    torch.testing.assert_close(totals, whole.forward(M).double(), rtol=1e-6, atol=0)


def test_a_part_alone_cannot_be_fitted(problem):
    M, y = problem
    model = SparseCalibrationWeights(10, shard=Shard(5, 10, N_RECORDS), **MODEL)
    part = M.tocsc()[:, 5:15]
    for call in (model.fit, model.refit):
        with pytest.raises(ValueError, match="process_group: expected one for a model of records 5 to 14 of 400"):
            call(part, y)
    with pytest.raises(ValueError, match="process_group: path works in one process only"):
        model.path([5], part, y)
    with pytest.raises(TypeError, match=r"process_group: expected one of torch\.distributed .*, got str"):
        make().fit(M, y, process_group="gloo")


# -- a group of one -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, {"target_records": 60, "refit": True}])
def test_group_of_one_is_the_plain_run(problem, group, extra):
    M, y = problem
    options = {**FIT, "epochs": 120, **extra}
    if extra:
        options.pop("lambda_l0")
    plain, alone = make(**MODEL).fit(M, y, **options), make(**MODEL).fit(M, y, process_group=group, **options)
    expected, weights = plain.get_weights(True).detach(), gathered_weights(alone, group)
    assert torch.equal(weights > 0, expected > 0)
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=0)
    np.testing.assert_allclose(alone.history["loss"], plain.history["loss"], rtol=1e-4)


def test_checkpoints_pass_between_plain_runs_and_groups(problem, group, tmp_path):
    M, y = problem
    path = tmp_path / "run.safetensors"
    whole = make(**MODEL).fit(M, y, epochs=60, process_group=group, **FIT)
    make(**MODEL).fit(M, y, epochs=30, process_group=group, checkpoint=path, **FIT)
    plain = make(**MODEL).load_checkpoint(path).fit(M, y, epochs=30, resume=True, checkpoint=path, **FIT)
    torch.testing.assert_close(plain.get_weights(True), whole.get_weights(True), rtol=1e-4, atol=0)
    back = make(**MODEL).load_checkpoint(path)
    with pytest.raises(ValueError, match="M is not that of the saved run"):
        back.fit(M * 2, y, epochs=1, resume=True, process_group=group, **FIT)
    assert back.fit(M, y, epochs=1, resume=True, process_group=group, **FIT).epoch == 61


def test_part_of_a_checkpoint(problem, tmp_path):
    M, y = problem
    path = tmp_path / "run.safetensors"
    model = make(**MODEL).fit(M, y, epochs=30, target_records=60, exact=True, checkpoint=path, lr=0.1)
    indices, log_alpha = model._run.unsettled
    shard = Shard(100, 200, N_RECORDS)
    part = SparseCalibrationWeights(200, shard=shard, **MODEL).load_checkpoint(path)
    assert torch.equal(part.log_weight, model.log_weight[shard.slice])
    assert torch.equal(part._run.moments["alpha_exp_avg_sq"], model._run.moments["alpha_exp_avg_sq"][shard.slice])
    here = (indices >= 100) & (indices < 300)
    assert 0 < here.sum() < len(indices)
    assert torch.equal(part._run.unsettled[0], indices[here] - 100)
    assert torch.equal(part._run.unsettled[1], log_alpha[here])
    with pytest.raises(ValueError, match="n_features is 400 there, 399 in this model"):
        SparseCalibrationWeights(200, shard=Shard(100, 200, 399), **MODEL).load_checkpoint(path)


# -- choosing over processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [0, 1, 17, 59, 60])
def test_most_probable_of_all(dtype, k):
    generator = torch.Generator().manual_seed(k)
    x = (torch.randn(60, generator=generator, dtype=dtype) * 2).round() / 2  # many are equal
    x[3], x[40], x[20], x[50] = torch.inf, -torch.inf, -0.0, 0.0
    cuts = [slice(0, 1), slice(1, 30), slice(30, 60)]
    parts = in_threads(3, lambda group: most_probable_of_all(x[cuts[group.rank]], k, group))
    found = torch.cat([part + cut.start for part, cut in zip(parts, cuts, strict=True)])
    assert found.tolist() == sorted(most_probable(x, k).tolist())


def test_facts_of_parts_are_those_of_the_whole(problem):
    M = sp.csc_array(problem[0])
    M.data[::50] *= -1
    M.data[7] = np.nan
    M = sp.csc_array(sp.hstack([M, sp.csc_array((N_TARGETS, 2))]))
    whole = row_facts(canonical(M))
    cuts = [slice(0, 150), slice(150, 151), slice(151, 402)]
    parts = in_threads(
        3,
        lambda group: merged_facts(row_facts(canonical(M[:, cuts[group.rank]]), cuts[group.rank].start), group),
    )
    for part in parts:
        fine = whole.bad == 0
        for name in ("nonzeros", "bad", "hash"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
        for name in ("least", "largest"):
            np.testing.assert_array_equal(getattr(part, name)[fine], getattr(whole, name)[fine])
    np.testing.assert_array_equal(parts[0].used, whole.used)


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["csr", "csc", "plain"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
def test_columns_of_an_npz(tmp_path, monkeypatch, layout, compressed, transposed):
    monkeypatch.setattr(npz, "PIECE", 13)
    M = sp.random(9, 40, density=0.3, format="csc", random_state=2)
    stored = M.T if transposed else M
    path = tmp_path / "m.npz"
    if layout == "plain":
        stored = sp.csr_matrix(stored)
        arrays = {name: getattr(stored, name) for name in ("data", "indices", "indptr")}
        (np.savez_compressed if compressed else np.savez)(path, shape=stored.shape, **arrays)
    else:
        sp.save_npz(path, stored.asformat(layout), compressed=compressed)
    shards = []
    for rank in range(3):
        part, shard = npz.read_columns(path, rank, 3, transposed)
        assert part.shape == (9, shard.size)
        np.testing.assert_array_equal(part.toarray(), M[:, shard.slice].toarray())
        shards.append(shard)
    assert shards == shard_bounds(M.indptr, 3)


def test_other_layouts_are_left_to_others(tmp_path):
    sp.save_npz(tmp_path / "m.npz", sp.random(9, 40, density=0.3, format="coo"))
    assert npz.read_columns(tmp_path / "m.npz", 0, 2) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": np.array([0, 3, 2, 4])}, "index pointer that rises"),
        ({"indptr": np.array([0, 1, 2, 5])}, "rises from 0 to at most 4"),
        ({"indptr": np.array([0, 4])}, "index pointer of 4 integers"),
        ({"indices": np.array([0, 1, 5, 1])}, "indices from 0 to 4, got 0 to 5"),
        ({"indices": np.array([0, -1, 2, 1])}, "indices from 0 to 4, got -1 to 2"),
        ({"indices": np.array([0.0, 1, 2, 1])}, "integer indices, got float64"),
        ({"data": np.array([1, "x", None, 2], dtype=object)}, "array data holds Python objects"),
    ],
)
def test_damaged_npz_is_refused(tmp_path, change, message):
    arrays = {"data": np.ones(4), "indices": np.array([0, 1, 2, 1]), "indptr": np.array([0, 2, 3, 4])}
    np.savez(tmp_path / "m.npz", shape=(3, 5), **(arrays | change))
    with pytest.raises(ValueError, match=message):
        npz.read_columns(tmp_path / "m.npz", 0, 2)


def test_cut_off_array_is_refused(tmp_path):
    sp.save_npz(tmp_path / "m.npz", sp.random(9, 40, density=0.3, format="csr"))
    with zipfile.ZipFile(tmp_path / "m.npz") as whole, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        for name in whole.namelist():
            content = whole.read(name)
            cut.writestr(zipfile.ZipInfo(name), content[:-8] if name == "data.npy" else content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="an array ends too early"):
        npz.read_columns(tmp_path / "cut.npz", 0, 2)


def test_part_of_a_parquet_file(tmp_path, group):
    pandas = pytest.importorskip("pandas")
    from l0fast.calibration.frames import CalibrationProblem
    from l0fast.calibration.frames.source import ParquetSource

    frame = pandas.DataFrame({"x": np.arange(100.0), "w": np.ones(100)})
    path = tmp_path / "records.parquet"
    frame.to_parquet(path, row_group_size=30)
    for first, end, groups in ((0, 30, [0]), (29, 61, [0, 1, 2]), (60, 61, [2]), (0, 100, [0, 1, 2, 3])):
        source = ParquetSource(path)
        source.types(["x"])
        source.narrow(first, end)
        assert source._row_groups()[0] == groups and source.n_records == end - first
        read = np.concatenate([table.column("x").to_numpy() for table in source.chunks(7)])
        np.testing.assert_array_equal(read, np.arange(first, end))
        source.types([])
        assert sum(table.num_rows for table in source.chunks(7)) == end - first
    targets = [{"name": "sum", "measure": "x", "value": 5000.0}]
    one = CalibrationProblem.from_frame(path, targets, process_group=group)
    assert one.shard == Shard(0, 100, 100) and one.matrix.n_records == 100
    with pytest.raises(TypeError, match="expected the path of a parquet file with process_group"):
        CalibrationProblem.from_frame(frame, targets, process_group=group)
