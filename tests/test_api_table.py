"""Nothing of l0-python is missing or different without a reason, and the table would notice if it were."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("l0", reason="l0-python is not installed: nothing to compare with")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import api_table
from api_cases import CASES

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


@pytest.fixture(scope="module")
def rows():
    return api_table.all_rows()


def test_every_difference_is_explained(rows):
    assert not api_table.unexplained(rows)


def test_the_table_covers_l0_python(rows):
    """Every public class is built and every one of its methods called; every public function is called."""
    import l0

    classes = {name for name in l0.__all__ if isinstance(getattr(l0, name), type)}
    assert classes == {case.name for case in CASES}
    functions = {f"l0.{getattr(l0, name).__module__.split('.')[1]}.{name}()" for name in set(l0.__all__) - classes}
    results = {row.key for row in rows if row.kind == "result"}
    assert functions <= results
    assert not [row for row in rows if row.theirs == "no call in api_cases.py"]


def test_markdown(capsys):
    assert api_table.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) > 400 and all(line.replace("\\|", "").count("|") == 5 for line in table)
    assert lines[-1].endswith("0 of them unexplained")


def test_a_missing_name_fails(monkeypatch, capsys):
    import l0fast.layers

    monkeypatch.delattr(l0fast.layers, "prune_model")
    assert "l0.layers.prune_model: function became nothing" in api_table.unexplained(
        list(api_table.name_rows(".layers"))
    )


def with_other_default(self, M, deterministic=True):
    pass


def with_other_order(self, deterministic=False, M=None):
    pass


def with_other_name(self, matrix, deterministic=False):
    pass


@pytest.mark.parametrize("changed", [with_other_default, with_other_order, with_other_name])
def test_a_changed_signature_is_seen(changed):
    from l0.sparse import SparseL0Linear

    assert not all(row.same for row in api_table.parameter_rows("", SparseL0Linear.forward, changed))
    assert all(row.same for row in api_table.parameter_rows("", SparseL0Linear.forward, SparseL0Linear.forward))


@pytest.mark.parametrize(
    "found",
    [
        torch.ones(3) * 1.001,
        torch.ones(3, 1),
        torch.ones(3, dtype=torch.float64),
        torch.nn.Parameter(torch.ones(3)),
        [1.0, 1.0, 1.0],
        None,
    ],
)
def test_a_changed_result_is_seen(found):
    assert api_table.equal(torch.ones(3), torch.ones(3))
    assert not api_table.equal(torch.ones(3), found)
    assert not api_table.equal({"a": (1, torch.ones(3))}, {"a": (1, found)})


def test_a_reason_for_no_difference_fails(rows, monkeypatch):
    monkeypatch.setitem(api_table.REASONS, "l0.layers.L0Linear.bias", "made up")
    assert api_table.unexplained(rows) == ["l0.layers.L0Linear.bias: has a reason but no difference"]
