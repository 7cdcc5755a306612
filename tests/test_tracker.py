"""The record of a training run."""

import csv
import io
import math
import sys

import numpy as np
import pytest
import torch

from l0fast import PenaltyTracker


@pytest.fixture
def tracker():
    tracker = PenaltyTracker()
    for value in (3.0, 1.5, 2.25):
        tracker.log("loss", value)
    tracker.log("sparsity", 1 / 3)
    return tracker


def test_statistics_of_l0_python(tracker):
    peer = pytest.importorskip("l0.penalties", reason="l0-python is not installed: nothing to compare with")
    theirs = peer.PenaltyTracker()
    for name, values in tracker.history.items():
        for value in values:
            theirs.log(name, value)
    for name in ("loss", "sparsity", "unknown"):
        assert tracker.get_stats(name) == theirs.get_stats(name)
        assert tracker.get_history(name) == theirs.get_history(name)
    assert not hasattr(theirs, "missing") and set(dir(theirs)) <= set(dir(tracker))


def test_an_unknown_name_is_not_added(tracker):
    assert tracker.get_history("unknown") == [] and tracker.get_stats("unknown") == {}
    assert list(tracker.history) == ["loss", "sparsity"]
    tracker.clear()
    assert tracker.get_history("loss") == []


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.array([[2.0]]), torch.tensor(2.0, requires_grad=True), torch.tensor([[2]])]
)
def test_logs_numbers_of_any_kind_as_floats(value):
    tracker = PenaltyTracker()
    tracker.log("x", value)
    assert tracker.get_history("x") == [2.0] and type(tracker.get_history("x")[0]) is float


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("x", "2", TypeError, r"value: expected a number, got str"),
        ("x", None, TypeError, r"value: expected a number, got NoneType"),
        ("x", torch.zeros(2), ValueError, r"value: expected one element, got shape \[2\]"),
        ("x", np.zeros(0), ValueError, r"value: expected one element, got shape \[0\]"),
        ("x", torch.tensor(1j), TypeError, r"value: expected a number, got complex"),
        (3, 2.0, TypeError, r"name: expected a string, got int"),
    ],
)
def test_bad_values_are_not_logged(name, value, error, message):
    tracker = PenaltyTracker()
    with pytest.raises(error, match=message):
        tracker.log(name, value)
    assert not tracker.history


def test_csv_pads_short_histories(tracker, tmp_path):
    """l0-python raises on histories of unequal length."""
    tracker.log("a, b", math.inf)
    tracker.save_to_csv(tmp_path / "run.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run.csv").read_text())))
    assert [row["loss"] for row in rows] == ["3.0", "1.5", "2.25"]
    assert [row["sparsity"] for row in rows] == [repr(1 / 3), "", ""]
    assert [row["a, b"] for row in rows] == ["inf", "", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["run.csv"]


def test_csv_is_that_of_l0_python(tmp_path):
    peer = pytest.importorskip("l0.penalties", reason="l0-python is not installed: nothing to compare with")
    pytest.importorskip("pandas")
    files = []
    for tracker in (PenaltyTracker(), peer.PenaltyTracker()):
        for k in range(40):
            tracker.log("loss", 1 / (k + 3))
            tracker.log("L0 penalty", 1e-7 * k)
        files.append(tmp_path / f"{len(files)}.csv")
        tracker.save_to_csv(str(files[-1]))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_csv_failure_leaves_the_old_file(tracker, tmp_path):
    with pytest.raises(OSError):
        tracker.save_to_csv(tmp_path / "no such folder" / "run.csv")
    with pytest.raises(TypeError):
        tracker.save_to_csv(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "start"), [("run.png", b"\x89PNG"), ("run.svg", b"<?xml"), ("run", b"\x89PNG")])
def test_plot_to_a_file(tracker, tmp_path, name, start):
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    open_before = plt.get_fignums()
    tracker.plot_history(save_path=tmp_path / name)
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().startswith(start) and file.name == (name if "." in name else f"{name}.png")
    assert plt.get_fignums() == open_before
    buffer = io.BytesIO()
    tracker.plot_history(["sparsity"], save_path=buffer)
    assert buffer.getvalue()


def test_plot_on_the_screen(tracker, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append([axes.get_title() for axes in plt.gcf().axes]))
    tracker.plot_history()
    tracker.plot_history(metrics=["sparsity"])
    plt.close("all")
    assert shown == [["loss", "sparsity"], ["sparsity"]]


def test_plot_refuses(tracker, tmp_path, monkeypatch):
    for metrics, error, message in (
        ("loss", TypeError, r"metrics: expected a list of names, got the string 'loss'"),
        (["loss", "lost"], ValueError, r"metrics: expected names among \['loss', 'sparsity'\], got \['lost'\]"),
    ):
        with pytest.raises(error, match=message):
            tracker.plot_history(metrics, save_path=tmp_path / "run.png")
    with pytest.raises(ValueError, match=r"empty history"):
        PenaltyTracker().plot_history(save_path=tmp_path / "run.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'matplotlib.*"l0fast\[report\]"'):
        tracker.plot_history(save_path=tmp_path / "run.png")
    assert list(tmp_path.iterdir()) == []
