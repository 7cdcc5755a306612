"""What only a real GPU has: streams, several devices, graphs, tensors on the wrong side."""

import pytest
import torch
from cuda_cases import same_bits
from test_calibration_epochs import problem as calibration
from test_calibration_epochs import start
from test_gated_totals import problem as totals_problem
from torch import nn

import l0fast
from l0fast import ops

SEED = torch.tensor([1234567890123456789])
SPIN = 50_000_000
"""Cycles for which a stream is kept busy: some 25 ms, much longer than a launch takes."""


def gates(device):
    return [torch.randn(5000, device=device), SEED.to(device)]


def weights(device):
    return [torch.randn(70, 130, device=device), torch.randn(70, 130, device=device), SEED.to(device)]


def totals(device):
    return [
        t.to(device) if isinstance(t, torch.Tensor) else t for t in (*totals_problem(77, 3001, torch.float32), SEED)
    ]


def epochs(device):
    return [t if t is None else t.to(device) for t in (*start(700), *calibration(40, 700))]


def run_epochs(*arguments):
    state = [t.clone() for t in arguments[:6]]
    return ops.calibration_epochs_(*state, *arguments[6:], epochs=5, lr=0.05, lambda_l0=1e-4), *state


def steps(device):
    state, (*matrix, _, _, _, _, anchor, seed) = start(700), calibration(40, 700)
    slopes = torch.linspace(-1, 1, 40, dtype=torch.float64)
    arguments = (*state, torch.ones(700), *matrix, 40, slopes, anchor, None, None, seed)
    return [t.to(device) if isinstance(t, torch.Tensor) else t for t in arguments]


def run_step(*arguments):
    state = [t.clone() for t in arguments[:7]]
    return *ops.calibration_step_(*state, *arguments[7:], lr=0.05, lambda_l0=1e-4), *state


CALLS = {
    "hard_concrete": (gates, lambda *a: (ops.hard_concrete(*a),)),
    "l0_penalty": (gates, lambda a, _: (ops.l0_penalty(a),)),
    "l0_penalties": (gates, lambda a, _: (ops.l0_penalties([a, a[3:]], [0.5] * 2, [-0.1] * 2, [1.1] * 2),)),
    "gated_weight": (weights, ops.gated_weight),
    "batch_gates": (gates, lambda *a: (ops.batch_gates(*a, 3),)),
    "gated_totals": (totals, ops.gated_totals),
    "calibration_epochs_": (epochs, run_epochs),
    "calibration_step_": (steps, run_step),
}


@pytest.mark.parametrize("op", CALLS)
def test_the_current_stream_is_used(gpu, op):
    """The arguments are written late, on a stream of their own: an op on another stream would read them too early."""
    make, call = CALLS[op]
    arguments = make(gpu)
    expected = call(*arguments)
    late = [torch.zeros_like(t) if isinstance(t, torch.Tensor) and t.is_floating_point() else t for t in arguments]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SPIN)
        for target, source in zip(late, arguments, strict=True):
            if target is not source:
                target.copy_(source)
        got = call(*late)
    stream.synchronize()
    assert same_bits(got, expected)


@pytest.mark.parametrize("op", CALLS)
def test_another_device_than_the_current_one(gpu, op):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    make, call = CALLS[op]
    torch.manual_seed(0)
    arguments = make("cpu")
    with torch.cuda.device(0):
        got = call(*[t.to("cuda:1") if isinstance(t, torch.Tensor) else t for t in arguments])
        assert torch.cuda.current_device() == 0
    assert all(t.device == torch.device("cuda:1") for t in got if t.numel() > 20)
    for a, b in zip(got, call(*arguments), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)


TENSORS = {
    "hard_concrete": {1: "seed"},
    "gated_weight": {1: "log_alpha", 2: "seed"},
    "batch_gates": {1: "seed"},
    "gated_totals": {1: "log_alpha", 2: "indptr", 3: "rows", 4: "values", 6: "seed"},
    "calibration_epochs_": {
        **{1: "log_alpha", 2: "weight_exp_avg", 6: "indptr", 7: "rows", 8: "values"},
        **{9: "targets", 10: "scales", 11: "omega", 14: "seed"},
    },
    "calibration_step_": {1: "log_alpha", 6: "gate", 7: "indptr", 8: "rows", 9: "values", 11: "slopes", 15: "seed"},
}
WRONG = [(op, position, name) for op, tensors in TENSORS.items() for position, name in tensors.items()]


@pytest.mark.parametrize(("op", "position", "name"), WRONG, ids=lambda x: str(x))
def test_a_tensor_left_on_the_cpu_is_refused_by_name(gpu, op, position, name):
    make, call = CALLS[op]
    arguments = make(gpu)
    arguments[position] = arguments[position].cpu()
    with pytest.raises((TypeError, ValueError, RuntimeError), match=rf"{name}: expected .*{gpu}.*, got .*cpu"):
        call(*arguments)


@pytest.mark.parametrize("op", ["gated_totals", "calibration_epochs_", "calibration_step_"])
def test_a_tensor_on_the_gpu_among_cpu_tensors_is_refused_by_name(gpu, op):
    make, call = CALLS[op]
    arguments = make("cpu")
    position, name = next((k, n) for k, n in TENSORS[op].items() if n == "rows")
    arguments[position] = arguments[position].to(gpu)
    with pytest.raises((TypeError, ValueError, RuntimeError), match=f"{name}: expected .*cpu.*, got .*cuda"):
        call(*arguments)


# -- graphs -----------------------------------------------------------------------------------------------------------


def captured_step(device, model, x):
    """A graph of forward, penalty and backward; its output, penalty and the parameters' gradients stay in place."""

    def step():
        for parameter in model.parameters():
            parameter.grad = None
        y = model(x)
        penalty = sum(layer.get_l0_penalty() for layer in model.modules() if isinstance(layer, l0fast.L0Linear))
        (y.square().mean() + 1e-3 * penalty).backward()
        return y.detach(), penalty.detach()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()
    return graph, [*outputs, *(p.grad for p in model.parameters())]


def test_replays_draw_new_noise_and_manual_seed_reproduces_them(gpu):
    torch.manual_seed(0)
    model = nn.Sequential(l0fast.L0Linear(64, 300), nn.ReLU(), l0fast.L0Linear(300, 10)).to(gpu)
    graph, tensors = captured_step(gpu, model, torch.randn(32, 64, device=gpu))

    def replays(count):
        torch.manual_seed(7)
        results = []
        for _ in range(count):
            graph.replay()
            results.append([t.clone() for t in tensors])
        return results

    first, second = replays(4), replays(4)
    for a, b in zip(first, second, strict=True):
        assert same_bits(a, b)
    for i in range(4):
        assert all(torch.isfinite(t).all() for t in first[i])
        assert torch.equal(first[i][1], first[0][1])  # the penalty has no noise
        for j in range(i):
            assert not torch.equal(first[i][0], first[j][0])


def test_a_captured_op_reads_its_seed_at_each_replay(gpu):
    a, seed = torch.randn(5000, device=gpu), SEED.to(gpu)
    expected = [ops.hard_concrete(a, seed + k) for k in range(3)]
    ops.hard_concrete(a, seed)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z = ops.hard_concrete(a, seed)
    for k in range(3):
        seed.copy_(SEED + k)
        graph.replay()
        assert torch.equal(z, expected[k])


def test_manual_seed_governs_the_seeds_drawn_on_the_device(device):
    layer = l0fast.L0Linear(40, 50).to(device)
    x = torch.randn(3, 40, device=device)
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(layer(x).detach())
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
