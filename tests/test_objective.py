import numpy as np
import pytest
import torch

from l0fast import constants as c
from l0fast import reference
from l0fast.calibration.objective import build_objective

Y = np.array([10.0, -20.0, 0.5, 300.0])


def loss_of(objective, totals):
    totals = torch.as_tensor(totals, dtype=torch.float64)
    return reference.data_loss(
        totals, objective.targets, objective.scales, objective.omega, objective.tolerances, objective.rho, objective.cap
    ).item()


def test_losses_by_hand():
    totals = np.array([11.0, -18.0, 0.5, 0.0])
    error = totals - Y
    assert loss_of(build_objective(Y, 4, "mse"), totals) == pytest.approx((error**2).sum())
    assert loss_of(build_objective(Y, 4, "relative"), totals) == pytest.approx(((error / (Y + 1)) ** 2).sum())
    x = np.abs(error) / np.maximum(np.abs(Y), 1)
    beyond = np.maximum(x - 0.05, 0)
    assert loss_of(build_objective(Y, 4, "relative_epsilon", target_tolerances=0.05), totals) == pytest.approx(
        (beyond**2).sum()
    )
    assert loss_of(build_objective(Y, 4, "capped_mape", loss_cap=0.3), totals) == pytest.approx(
        np.minimum(x, 0.3).mean()
    )


def test_groups_multipliers_and_weights():
    groups = ["a", "b", "b", "b"]
    objective = build_objective(Y, 4, target_groups=groups, group_multipliers={"b": 6.0}, target_weights=[1, 1, 2, 1])
    np.testing.assert_allclose(objective.omega.numpy(), [1, 2, 4, 2])
    assert objective.groups.tolist() == [0, 1, 1, 1]
    plain = build_objective(Y, 4, target_groups=groups, normalize_groups=False)
    np.testing.assert_allclose(plain.omega.numpy(), 1)
    capped = build_objective(Y, 4, "capped_mape", target_groups=groups, target_weights=[1, 1, 2, 1])
    assert capped.omega.sum().item() == pytest.approx(1)


def test_scales_can_be_given():
    objective = build_objective([-1.0, 5.0], 2, "relative", target_scales=[2.0, 4.0])
    assert objective.scales.tolist() == [2.0, 4.0]
    assert objective.rho == c.RHO_SQUARE


def test_targets_are_copied():
    y = Y.copy()
    objective = build_objective(y, 4)
    y[0] = 99
    assert objective.targets[0] == 10


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(loss_type="mae"), ValueError, r"loss_type: expected one of mse, relative, .*got 'mae'"),
        (dict(y=Y[:3]), ValueError, r"y: expected shape \(4,\), one for each target, got \(3,\)"),
        (dict(y=[1, 2, np.nan, 4]), ValueError, r"y: expected finite values, got nan at target 2"),
        (dict(y=[1, 2, 3, np.inf]), ValueError, r"y: expected finite values, got inf at target 3"),
        (dict(y=["a", "b", "c", "d"]), TypeError, r"y: expected numbers, got list"),
        (dict(y=[1, -1, 3, 4], loss_type="relative"), ValueError, r"y: .* 0 at target 1 \(y = -1\)"),
        (dict(target_scales=[1, 0, 1, 1]), ValueError, r"target_scales: .* got 0 at target 1"),
        (dict(target_weights=[1, -1, 1, 1]), ValueError, r"target_weights: .* got -1.0 at target 1"),
        (dict(target_weights=0), ValueError, r"target_weights: expected at least one positive"),
        (dict(target_tolerances=0.1), ValueError, r"target_tolerances: only loss_type 'relative_epsilon'"),
        (dict(loss_type="relative_epsilon"), ValueError, r"target_tolerances: .* needs them"),
        (
            dict(loss_type="relative_epsilon", target_tolerances=[0, 0, -0.1, 0]),
            ValueError,
            r"target_tolerances: expected non-negative values, got -0.1 at target 2",
        ),
        (dict(loss_type="capped_mape", loss_cap=0), ValueError, r"loss_cap: expected a positive number, got 0"),
        (dict(group_multipliers={1: 2.0}), ValueError, r"group_multipliers requires target_groups"),
        (dict(target_groups=[1, 1, 2]), ValueError, r"target_groups: expected shape \(4,\)"),
        (dict(target_groups=[1, 1, 2, 2], group_multipliers={3: 1.0}), ValueError, r"key 3 not found in target_groups"),
        (dict(target_groups=[1, 1, 2, 2], group_multipliers={1: -1.0}), ValueError, r"group_multipliers: expected fin"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        build_objective(**{"y": Y, "n_targets": 4, **arguments})
