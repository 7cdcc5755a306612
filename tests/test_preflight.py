"""Every kind of trouble is found, named, and nothing else is."""

import numpy as np
import pytest
import scipy.sparse as sp

from l0fast.calibration import row_facts
from l0fast.calibration.preflight import preflight


def codes(report):
    return {finding.code: finding for finding in report.findings}


def test_a_clean_problem_has_no_findings():
    report = preflight(sp.csr_array(np.eye(3)), [1.0, 2.0, 3.0])
    assert report.findings == [] and report.errors == []
    assert report.achievable.all()
    assert report.bytes_total > 0 and report.seconds > 0


def test_rows_without_nonzeros():
    M = sp.csr_array(np.array([[1.0, 1.0], [0, 0], [0, 0]]))
    report = preflight(M, [1.0, 5.0, 0.0], ["a", "b", "c"])
    found = codes(report)
    assert found["empty-row"].level == "error" and found["empty-row"].rows.tolist() == [1]
    assert "b (5)" in found["empty-row"].message
    assert found["empty-row-zero-target"].level == "warning"
    assert report.achievable.tolist() == [True, False, True]
    assert [f.level for f in report.findings] == ["error", "warning"], "worst first"


def test_entries_stored_as_zero_are_no_nonzeros():
    M = sp.csr_array((np.array([0.0, 1.0]), np.array([0, 0]), np.array([0, 1, 2])), shape=(2, 1))
    assert "empty-row" in codes(preflight(M, [1.0, 1.0]))


def test_signs_that_cannot_be_reached():
    M = sp.csr_array(np.array([[1.0, 2], [-1, -2], [1, -1], [1, -1]]))
    report = preflight(M, [-5.0, 5.0, -3.0, 3.0], ["a", "b", "c", "d"])
    assert codes(report)["unreachable-sign"].rows.tolist() == [0, 1]
    assert report.achievable.tolist() == [False, False, True, True]


def test_duplicate_and_contradictory_rows():
    M = sp.csr_array(np.array([[1.0, 2, 0], [1, 2, 0], [1, 2, 0], [0, 1, 2], [1, 0, 2]]))
    found = codes(preflight(M, [4.0, 4.0, 7.0, 4.0, 4.0], ["a", "b", "c", "d", "e"]))
    assert set(found) == {"duplicate-rows", "contradictory-rows"}
    assert found["duplicate-rows"].level == found["contradictory-rows"].level == "warning"
    assert "b repeats a" in found["duplicate-rows"].message
    assert "b (4) and c (7)" in found["contradictory-rows"].message


def test_row_hashes_do_not_depend_on_how_a_row_is_stored():
    plain = sp.csr_array(np.array([[1.0, 2, 0, 4]]))
    odd = sp.csr_array(
        (np.array([4.0, 0.0, 1.5, 2.0, -0.5]), np.array([3, 2, 0, 1, 0]), np.array([0, 5])), shape=(1, 4)
    )
    hashes = [row_facts.row_facts(row_facts.canonical(M)).hash[0] for M in (plain, odd)]
    assert hashes[0] == hashes[1]
    assert odd.nnz == 5, "the caller's matrix stays as it was"


def test_blocks_do_not_change_the_facts(monkeypatch):
    M = sp.random(80, 50, density=0.2, random_state=0, format="lil")
    M[7] = 0
    M = row_facts.canonical(M)
    whole = row_facts.row_facts(M)
    monkeypatch.setattr(row_facts, "_BLOCK", 13)
    blocks = row_facts.row_facts(M)
    for name in ("nonzeros", "bad", "least", "largest", "hash", "used"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name))
    dense = M.toarray()
    np.testing.assert_array_equal(whole.nonzeros, (dense != 0).sum(axis=1))
    np.testing.assert_array_equal(whole.used, (dense != 0).any(axis=0))


def test_target_of_minus_one_under_the_relative_loss():
    M = sp.csr_array(np.array([[-1.0]]))
    assert codes(preflight(M, [-1.0]))["relative-scale-zero"].level == "error"
    assert "relative-scale-zero" not in codes(preflight(M, [-1.0], loss_type="mse"))
    assert "relative-scale-zero" not in codes(preflight(M, [-1.0], target_scales=[2.0]))


def test_columns_without_use():
    found = codes(preflight(sp.csr_array(np.array([[1.0, 0, 0]])), [1.0]))
    assert found["unused-column"].level == "warning" and found["unused-column"].rows.tolist() == [1, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad):
    M = sp.csr_array(np.array([[1.0, bad], [1, 2], [2, 1]]))
    options = {"target_weights": [1, 1, bad], "target_scales": [1, bad, 1], "target_tolerances": [bad, 0, 0]}
    report = preflight(M, [1.0, bad, 2.0], ["a", "b", "c"], init_weights=[1.0, bad], **options)
    found = codes(report)
    expected = {"matrix-not-finite", "target-not-finite", "target-weights", "target-scales", "target-tolerances"}
    assert expected | {"initial-weight"} <= set(found)
    assert "b (" in found["target-not-finite"].message
    assert "a" in found["matrix-not-finite"].message
    assert "record 1" in found["initial-weight"].message
    assert report.achievable.tolist() == [False, False, True]


def test_options_out_of_range():
    M = sp.csr_array(np.eye(2))
    found = codes(preflight(M, [1.0, 2.0], target_tolerances=[0.1, -0.1], target_scales=[1.0, 0.0]))
    assert found["target-tolerances"].rows.tolist() == [1] and found["target-scales"].rows.tolist() == [1]


def test_only_the_first_five_culprits_are_named():
    M = sp.csr_array((8, 1))
    message = codes(preflight(M, np.arange(1.0, 9.0)))["empty-row"].message
    assert "target 4" in message and "target 5" not in message and "3 more" in message


def test_any_scipy_format_will_do():
    dense = np.array([[1.0, 0], [1, 0]])
    for kind in (sp.csr_array, sp.csc_matrix, sp.coo_array, sp.lil_matrix, sp.dok_array):
        assert "duplicate-rows" in codes(preflight(kind(dense), [1.0, 1.0]))


def test_bad_calls():
    with pytest.raises(TypeError, match="matrix: expected a scipy sparse matrix, got ndarray"):
        preflight(np.eye(2), [1, 2])
    with pytest.raises(ValueError, match="at least one target and one record"):
        preflight(sp.csr_array((0, 3)), [])
    with pytest.raises(ValueError, match="targets: expected 2 values"):
        preflight(sp.csr_array(np.eye(2)), [1.0])
    with pytest.raises(ValueError, match="names: expected 2 names"):
        preflight(sp.csr_array(np.eye(2)), [1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="init weights: expected 2 values"):
        preflight(sp.csr_array(np.eye(2)), [1.0, 2.0], init_weights=[1.0])
