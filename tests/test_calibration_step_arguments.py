"""What calibration_step_ and the bounds refuse, and what autograd hears of it."""

import pytest
import torch
from test_calibration_epochs import problem, start
from test_calibration_step import STATE, arguments

from l0fast import constants as c
from l0fast import ops


def test_autograd_sees_the_change(native):
    given = arguments()
    log_weight, gate = given[0].requires_grad_(), given[STATE].requires_grad_()
    for tensor, slopes in ((log_weight, given[11]), (gate, None)):
        y = (tensor * tensor).sum()
        ops.calibration_step_(*given[:11], slopes, *given[12:])
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


def test_a_first_draw_leaves_the_parameters_to_autograd(native):
    given = arguments()
    log_weight = given[0].requires_grad_()
    y = (log_weight * log_weight).sum()
    ops.calibration_step_(*given[:11], None, *given[12:])
    y.backward()
    assert torch.equal(log_weight.grad, 2 * log_weight)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (1, torch.zeros(3), r"log_alpha: expected shape \[50\]"),
        (2, torch.zeros(50, dtype=torch.float64), r"weight_exp_avg: expected torch.float32"),
        (6, torch.zeros(49), r"gate: expected shape \[50\]"),
        (6, None, r"gate: expected a torch.Tensor, got NoneType"),
        (10, -1, r"n_targets: expected a finite non-negative number, got -1"),
        (10, 4, r"slopes: expected shape \[4\], got \[5\]"),
        (11, torch.zeros(5), r"slopes: expected float64, got float32"),
        (11, [0.0] * 5, r"slopes: expected a torch.Tensor, got list"),
        (12, torch.zeros(4), r"anchor: expected shape \[50\]"),
        (13, torch.zeros(50, dtype=torch.float64), r"low: expected torch.float32"),
        (14, torch.zeros(1), r"high: expected shape \[50\]"),
    ],
)
def test_bad_tensors(native, position, value, message):
    given = arguments()
    given[position] = value
    with pytest.raises((TypeError, ValueError), match=message):
        ops.calibration_step_(*given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(lambda_l1=0.1), r"lambda_l1: expected 0 unless link is LINK_IDENTITY \(1\), got 0.1 with link 0"),
        (dict(lambda_l1=-0.1, link=1), r"lambda_l1: expected a finite non-negative number, got -0.1"),
        (dict(lr=float("nan")), r"lr: expected a finite non-negative number"),
        (dict(epoch=-1), r"stream: expected 0 <= stream"),
        (dict(link=7), r"link: expected LINK_EXP"),
    ],
)
@pytest.mark.parametrize("op", ["step", "epochs"])
def test_bad_scalars(change, message, op):
    given = arguments()
    if op == "epochs":
        change = {"first_epoch" if name == "epoch" else name: value for name, value in change.items()}
    with pytest.raises(ValueError, match=message):
        if op == "step":
            ops.calibration_step_(*given, **change)
        else:
            ops.calibration_epochs_(*start(50), *problem(5, 50), **change)


def test_bad_bounds_of_the_epochs():
    for name, value in (("low", torch.zeros(49)), ("high", torch.zeros(50, dtype=torch.float64)), ("high", 3.0)):
        with pytest.raises((TypeError, ValueError), match=f"{name}: expected"):
            ops.calibration_epochs_(*start(50), *problem(5, 50), **{name: value})


SCALARS = (0, 0, c.LINK_EXP, True, 0.5, -0.1, 1.1, 20.0, 1e-6, 0.0, 0.0, 0.0, 0.1, 0.9, 0.999, 1e-8)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (6, torch.zeros(49), r"gate: expected shape \[50\]"),
        (6, torch.zeros(100)[::2], r"gate: expected a contiguous tensor"),
        (10, -1, r"n_targets: expected a count, got -1"),
        (11, torch.zeros(5), r"slopes: expected float64"),
        (13, torch.zeros(49), r"low: expected shape \[50\]"),
        (14, torch.zeros(50, dtype=torch.float64), r"high: expected float32"),
        (16, 2**32 - 1, r"epoch: expected 0 <= epoch < 2\^32 - 1"),
        (27, 0.1, r"lambda_l1: expected 0 unless link is 1 \(identity\), got 0.1"),
        (27, -0.1, r"lambda_l1: expected a non-negative number, got -0.1"),
    ],
)
def test_the_dispatcher_checks_too(native, position, value, message):
    """Whoever calls torch.ops.l0fast passes no Python of ours."""
    given = [*arguments(), *SCALARS]
    given[position] = value
    with pytest.raises(RuntimeError, match=message):
        torch.ops.l0fast.calibration_step_(*given)


def test_a_row_out_of_range_is_refused_before_anything_changes(native):
    given = arguments()
    before = [x.clone() for x in given[: STATE + 1]]
    given[8] = given[8].clone()
    given[8][-1] = 5
    with pytest.raises(RuntimeError, match=r"calibration_step_: rows: expected 0 <= row < 5"):
        ops.calibration_step_(*given)
    assert all(torch.equal(a, b) for a, b in zip(given[: STATE + 1], before, strict=True))


@pytest.mark.parametrize("slopes", [True, False])
def test_opcheck(native, slopes):
    given = arguments()
    if not slopes:
        given[11:15] = [None] * 4
    torch.library.opcheck(
        torch.ops.l0fast.calibration_step_.default, (*given, *SCALARS), test_utils=("test_schema", "test_faketensor")
    )
