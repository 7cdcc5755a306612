"""calibration_epochs_ on the device: mirrors tests/test_calibration_epochs.py."""

import math

import pytest
import torch
from compare import assert_as_good_as_torch
from cuda_cases import same_bits
from test_calibration_epochs import LINEAR, N_MOMENTS, OPTIONS, bias_of, problem, start, with_bounds
from test_cuda_gated_totals import EXTREMES, gated

from l0fast import constants as c
from l0fast import ops, reference


def to(where, tensors):
    return [t if t is None else t.to(where) for t in tensors]


def settings_on(where, settings):
    return {name: x.to(where) if isinstance(x, torch.Tensor) else x for name, x in settings.items()}


def state_on(where, n, dtype=torch.float32):
    return to(where, start(n, dtype))


def bias_on(where, dtype=torch.float32):
    return {name: t.to(where) for name, t in bias_of(dtype).items()}


def assert_follows_reference(device, arguments, epochs, state_of, bias=False, **settings):
    """Epoch by epoch in float64: metrics, parameters, moments and bias."""
    bounds = {name: settings.pop(name) for name in ("low", "high") if name in settings}
    runs = []
    for functions, where in ((ops, device), (reference, "cpu")):
        extra = {**(bias_on(where, torch.float64) if bias else {}), **settings_on(where, bounds)}
        runs.append((functions, to(where, state_of()), to(where, arguments), extra))
    for epoch in range(epochs):
        metrics = [
            functions.calibration_epochs_(*state, *given, first_epoch=epoch, **extra, **settings).cpu()
            for functions, state, given, extra in runs
        ]
        torch.testing.assert_close(*metrics, rtol=1e-9, atol=1e-11)
        for a, b in zip(*([*state, *extra.values()] for _, state, _, extra in runs), strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("anchor", [False, True], ids=["no anchor", "anchor"])
def test_float64_equals_reference_and_adam(device, options, anchor):
    settings = {"temperature": 0.35, "lambda_l0": 1e-3, "lambda_l2": 1e-3, "lr": 0.05, **with_bounds(options, 700)}
    arguments = problem(40, 700, torch.float64, tolerances="rho" in options, anchor=anchor)
    assert_follows_reference(device, arguments, 20, lambda: start(700, torch.float64), **settings)


@pytest.mark.parametrize("options", LINEAR, ids=str)
@pytest.mark.parametrize("shape", [(40, 700), (2500, 60)], ids=str)
def test_linear_weights_and_bias(device, shape, options):
    """Signed weights, some of them exactly 0."""
    m, n = shape

    def state_of():
        state = start(n, torch.float64)
        state[0][::7] = 0
        return state

    settings = {"temperature": 0.35, "lambda_l0": 1e-2, "lambda_l2": 1e-2, "lr": 0.05, **with_bounds(options, n)}
    arguments = problem(m, n, torch.float64, anchor=True)
    assert_follows_reference(device, arguments, 20, state_of, link=c.LINK_IDENTITY, **settings)


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_extreme_shapes(device, name, share):
    lengths, m = EXTREMES[name]
    row_type = torch.uint16 if m <= 65_536 else torch.int32
    generator = torch.Generator().manual_seed(2)
    log_weight, log_alpha, indptr, rows, values, m = gated(lengths, m, row_type, share, generator)
    targets = torch.linspace(1, 9, m, dtype=torch.float64)
    omega = torch.full((m,), 1 / m, dtype=torch.float64)
    arguments = (indptr, rows, values.double(), targets, targets + 1, omega, None, None, torch.tensor([5]))
    moments = [torch.zeros(len(lengths), dtype=torch.float64) for _ in range(N_MOMENTS)]

    def state_of():
        return [log_weight.double() * 0.1, log_alpha.double(), *(moment.clone() for moment in moments)]

    assert_follows_reference(device, arguments, 3, state_of, lambda_l0=1e-4, lr=0.02)


@pytest.mark.parametrize("link", [c.LINK_EXP, c.LINK_IDENTITY])
@pytest.mark.parametrize("row_type", [torch.uint16, torch.int32], ids=str)
def test_hundred_float32_epochs(device, link, row_type):
    """Losses and weights: at most twice the error of plain torch in float32, and the CPU's to some roundings."""
    m, n = 77, 3001
    settings = {"temperature": 0.35, "lambda_l0": 1e-4, "lambda_l2": 1e-6, "lr": 0.02, "epochs": 100, "link": link}
    results = []
    for functions, dtype, where in (
        (ops, torch.float32, device),
        (reference, torch.float32, "cpu"),
        (reference, torch.float64, "cpu"),
        (ops, torch.float32, "cpu"),
    ):
        state = state_on(where, n, dtype)
        arguments = to(where, problem(m, n, dtype, row_type))
        losses = functions.calibration_epochs_(*state, *arguments, **settings)[:, 0]
        # The losses are float64 in all of them; as values of a float32 run they are compared as float32.
        results.append([t.cpu() for t in (losses.to(dtype), *state[:2])])
    *three, on_cpu = results
    for k, what in enumerate(("losses", "log_weight", "log_alpha")):
        assert_as_good_as_torch(*(r[k] for r in three), what)
        assert_as_good_as_torch(on_cpu[k], three[1][k], three[2][k], f"{what} on the CPU")


@pytest.mark.parametrize("gates", [True, False])
@pytest.mark.parametrize("epochs", [100])
def test_same_bits_twice(device, gates, epochs):
    results = []
    for _ in range(2):
        state, extra = state_on(device, 3001), bias_on(device)
        settings = {"lr": 0.05, "lambda_l0": 1e-5, "epochs": epochs, "gates": gates, "link": c.LINK_IDENTITY, **extra}
        metrics = ops.calibration_epochs_(*state, *to(device, problem(300, 3001)), **settings)
        results.append([metrics, *state, *extra.values()])
    assert same_bits(*results)


@pytest.mark.parametrize("link", [c.LINK_EXP, c.LINK_IDENTITY])
@pytest.mark.parametrize("chunks", [[1] * 20, [7, 13], [19, 1]], ids=str)
def test_chunks_equal_one_run(device, chunks, link):
    settings = {"lr": 0.1, "lambda_l0": 1e-4, "link": link}
    arguments = to(device, problem(77, 3001))
    whole, bias = state_on(device, 3001), bias_on(device)
    expected = ops.calibration_epochs_(*whole, *arguments, epochs=20, **bias, **settings)
    state, metrics, done, own = state_on(device, 3001), [], 0, bias_on(device)
    for count in chunks:
        options = {"epochs": count, "first_epoch": done, **own, **settings}
        metrics.append(ops.calibration_epochs_(*state, *arguments, **options))
        done += count
    assert torch.equal(torch.cat(metrics), expected)
    assert same_bits([*state, *own.values()], [*whole, *bias.values()])


@pytest.mark.parametrize("first", [0, 3])
def test_stops_before_a_loss_that_is_not_finite(device, first):
    """The first epochs are done; the one whose loss is infinite changes nothing, and neither do those after it."""
    state, arguments = state_on(device, 50), to(device, problem(5, 50))
    done = ops.calibration_epochs_(*state, *arguments, epochs=first, gates=False, lr=0.01)
    assert torch.isfinite(done).all()
    state[0][arguments[0].diff().argmax()] = math.nan  # a record that has nonzeros
    before = [x.clone() for x in state]
    metrics = ops.calibration_epochs_(*state, *arguments, first_epoch=first, epochs=3, gates=False)
    assert not math.isfinite(metrics[0, 0]) and metrics[1:].isnan().all()
    assert same_bits(*([x.nan_to_num(7) for x in tensors] for tensors in (state, before)))


def test_stops_in_the_middle_of_a_call(device):
    """A step so long that the totals overflow: the epochs before it are as in a run that ends there."""
    arguments, settings = to(device, problem(5, 50)), {"gates": False, "lr": 60.0}
    state = state_on(device, 50)
    metrics = ops.calibration_epochs_(*state, *arguments, epochs=12, **settings)
    finished = int(torch.isfinite(metrics[:, 0]).sum())
    assert 0 < finished < 12 and metrics[finished + 1 :].isnan().all()
    again = state_on(device, 50)
    expected = ops.calibration_epochs_(*again, *arguments, epochs=finished, **settings)
    assert torch.equal(metrics[:finished], expected)
    assert same_bits(*([x.nan_to_num(7) for x in tensors] for tensors in (state, again)))


def test_zero_epochs_change_nothing(device):
    state = state_on(device, 50)
    before = [x.clone() for x in state]
    assert ops.calibration_epochs_(*state, *to(device, problem(5, 50)), epochs=0).shape == (0, 4)
    assert same_bits(state, before)


def test_autograd_sees_the_change(device):
    state = state_on(device, 50)
    log_weight = state[0].requires_grad_()
    y = (log_weight * log_weight).sum()
    ops.calibration_epochs_(*state, *to(device, problem(5, 50)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_indices_out_of_range_are_refused_before_anything_changes(device):
    state, arguments = state_on(device, 50), list(problem(5, 50, row_type=torch.int32))
    arguments[1] = arguments[1].clone()
    arguments[1][-1] = 5
    before = [x.clone() for x in state]
    with pytest.raises(RuntimeError, match=r"rows: expected 0 <= row < 5"):
        ops.calibration_epochs_(*state, *to(device, arguments), epochs=2)
    assert same_bits(state, before)
