"""calibration_step_ on the device: mirrors tests/test_calibration_step.py."""

import math

import pytest
import torch
from compare import assert_as_good_as_torch
from cuda_cases import same_bits
from test_calibration_epochs import start
from test_calibration_step import OPTIONS, RESTRICTED, run, split
from test_cuda_calibration_epochs import to
from test_cuda_gated_totals import EXTREMES, gated

from l0fast import constants as c
from l0fast import ops, reference


def on(where, parts):
    return tuple(to(where, part) for part in parts)


def assert_follows_reference(device, parts, state_of, epochs, settings):
    """Totals, sums, gates, parameters and moments of float64 steps."""
    states = [to(where, state_of()) for where in (device, "cpu")]
    runs = [
        run(functions, state, on(where, parts), epochs, settings)
        for functions, state, where in ((ops, states[0], device), (reference, states[1], "cpu"))
    ]
    for got, expected in zip(*(results for results, _ in runs), strict=True):
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-10)
    for a, b in zip(*([*state, gate] for state, (_, gate) in zip(states, runs, strict=True)), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(40, 700), (2500, 60)], ids=str)
def test_float64_equals_reference(device, shape, options):
    settings = {"temperature": 0.35, "lambda_l0": 1e-3, "lambda_l2": 1e-3, "lr": 0.05, **options}
    parts = split(*shape, torch.float64, anchor=True, bounds=True)
    assert_follows_reference(device, parts, lambda: start(shape[1], torch.float64), 12, settings)


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_shapes(device, name):
    """Long columns, empty ones, many targets."""
    lengths, m = EXTREMES[name]
    row_type = torch.uint16 if m <= 65_536 else torch.int32
    generator = torch.Generator().manual_seed(2)
    log_weight, log_alpha, indptr, rows, values, m = gated(lengths, m, row_type, 0.5, generator)
    targets = torch.linspace(1, 9, m, dtype=torch.float64)
    loss = (targets, targets + 1, torch.full((m,), 1 / m, dtype=torch.float64))
    parts = ((indptr, rows, values.double()), loss, (None, None, None, torch.tensor([5])))

    def state_of():
        moments = [torch.zeros(len(lengths), dtype=torch.float64) for _ in range(4)]
        return [log_weight.double() * 0.1, log_alpha.double(), *moments]

    assert_follows_reference(device, parts, state_of, 2, {"lambda_l0": 1e-4, "lr": 0.02})


@pytest.mark.parametrize("options", [{}, RESTRICTED], ids=str)
def test_float32_as_good_as_torch(device, options):
    results = []
    settings = {"temperature": 0.35, "lambda_l0": 1e-4, "lambda_l2": 1e-6, "lr": 0.02, **options}
    for functions, dtype, where in (
        (ops, torch.float32, device),
        (reference, torch.float32, "cpu"),
        (reference, torch.float64, "cpu"),
    ):
        state = to(where, start(3001, dtype))
        run(functions, state, on(where, split(77, 3001, dtype)), 20, settings)
        results.append([x.cpu() for x in state])
    for k, what in enumerate(("log_weight", "log_alpha")):
        assert_as_good_as_torch(*(state[k] for state in results), what)


@pytest.mark.parametrize("options", [{}, RESTRICTED, {"gates": False}], ids=str)
def test_follows_calibration_epochs(device, options):
    """The bits of the open gates; the rest to rounding: the residuals are computed elsewhere."""
    matrix, loss, (anchor, low, high, seed) = parts = on(device, split(77, 3001, torch.float64, bounds=True))
    settings = {"lambda_l0": 1e-4, "lambda_l2": 1e-6, "lr": 0.02, **options}
    whole, stepped = (to(device, start(3001, torch.float64)) for _ in range(2))
    metrics = ops.calibration_epochs_(
        *(*whole, *matrix, *loss, None, anchor, seed), low=low, high=high, epochs=20, **settings
    )
    results, _ = run(ops, stepped, parts, 20, settings)
    torch.testing.assert_close(whole, stepped, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(metrics[:, 1:3], torch.stack([sums[:2] for _, sums in results[1:]]))
    assert torch.equal(metrics[:, 3], torch.stack([sums[2] for _, sums in results[:-1]]))


def test_same_bits_twice(device):
    results = []
    for _ in range(2):
        state = to(device, start(3001))
        steps, gate = run(ops, state, on(device, split(300, 3001)), 10, {"lr": 0.05, "lambda_l0": 1e-5})
        results.append([*state, gate, *(x for pair in steps for x in pair)])
    assert same_bits(*results)


@pytest.mark.parametrize("n", [0, 1, 33])
def test_edge_sizes(device, n):
    parts = split(5, n, torch.float64, bounds=True)
    assert_follows_reference(device, parts, lambda: start(n, torch.float64), 2, {"lambda_l0": 0.1})


def test_without_slopes_only_the_gates_change(device):
    (matrix, loss, limits), state = on(device, split(40, 700)), to(device, start(700))
    gate = torch.full((700,), 9.0, device=device)
    _, sums = ops.calibration_step_(*state, gate, *matrix, len(loss[0]), None, *limits, epoch=4, lambda_l2=1.0)
    assert same_bits(state, to(device, start(700)))
    assert torch.equal(gate, ops.hard_concrete(state[1], limits[-1], stream=4))
    assert sums.tolist() == [0, 0, int(gate.count_nonzero())]


def test_a_weight_that_is_not_finite_shows_in_the_totals(device):
    (matrix, loss, limits), state = on(device, split(40, 700)), to(device, start(700))
    state[0][:] = math.nan
    totals, _ = ops.calibration_step_(*state, torch.ones_like(state[0]), *matrix, len(loss[0]), None, *limits)
    assert totals.isnan().all()


def test_a_row_out_of_range_is_refused_before_anything_changes(device):
    (matrix, _, limits), state = on(device, split(5, 50, row_type=torch.int32)), to(device, start(50))
    matrix[1][-1] = 5
    slopes, gate = torch.ones(5, dtype=torch.float64, device=device), torch.ones_like(state[0])
    with pytest.raises(RuntimeError, match=r"calibration_step_: rows: expected 0 <= row < 5"):
        ops.calibration_step_(*state, gate, *matrix, 5, slopes, *limits, link=c.LINK_EXP)
    assert same_bits([*state, gate], [*to(device, start(50)), torch.ones_like(gate)])
