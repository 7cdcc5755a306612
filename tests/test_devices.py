"""Tensors on different devices: refused by name before a kernel could read them. "meta" stands for the other device."""

import pytest
import torch
from random_columns import columns

from l0fast import ops

SEED = torch.tensor([7])
N_TARGETS, N_RECORDS = 6, 40


def vector(dtype=torch.float32, length=N_RECORDS):
    return torch.ones(length, dtype=dtype)


def matrix():
    return dict(zip(("indptr", "rows", "values"), columns(N_TARGETS, N_RECORDS), strict=True))


def epochs_arguments():
    moments = ("weight_exp_avg", "weight_exp_avg_sq", "alpha_exp_avg", "alpha_exp_avg_sq")
    state = {name: vector() for name in ("log_weight", "log_alpha", *moments)}
    per_target = ("targets", "scales", "omega", "tolerances")
    objective = {name: vector(torch.float64, N_TARGETS) for name in per_target}
    bias = {name: torch.zeros(1) for name in ("bias", "bias_exp_avg", "bias_exp_avg_sq")}
    bounds = {"low": vector(), "high": vector()}
    return {**state, **matrix(), **objective, "anchor": vector(), "seed": SEED, **bias, **bounds}


def step_arguments():
    epochs = epochs_arguments()
    shared = [
        name for name in epochs if name not in ("targets", "scales", "omega", "tolerances") and "bias" not in name
    ]
    slopes = vector(torch.float64, N_TARGETS)
    return {**{name: epochs[name] for name in shared}, "gate": vector(), "n_targets": N_TARGETS, "slopes": slopes}


CALLS = {
    ops.hard_concrete: {"log_alpha": vector(), "seed": SEED},
    ops.batch_gates: {"log_alpha": vector(), "seed": SEED, "batch": 2},
    ops.gated_weight: {"weight": vector(), "log_alpha": vector(), "seed": SEED},
    ops.gated_totals: {
        **{"log_weight": vector(), "log_alpha": vector(), **matrix()},
        **{"n_targets": N_TARGETS, "seed": SEED},
    },
    ops.calibration_epochs_: epochs_arguments(),
    ops.calibration_step_: step_arguments(),
}
FIRST = {"hard_concrete": "log_alpha", "batch_gates": "log_alpha", "gated_weight": "weight"}
PAIRS = [
    (op, name)
    for op, arguments in CALLS.items()
    for name, value in arguments.items()
    if isinstance(value, torch.Tensor) and name != FIRST.get(op.__name__, "log_weight")
]


@pytest.mark.parametrize(("op", "name"), PAIRS, ids=lambda x: getattr(x, "__name__", x))
def test_a_tensor_elsewhere_is_refused_by_name(op, name):
    """Whatever op and argument: the one that lies elsewhere is named, and the tensors stay as they were."""
    arguments = {key: x.clone() if isinstance(x, torch.Tensor) else x for key, x in CALLS[op].items()}
    arguments[name] = arguments[name].to("meta")
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .* on cpu.* got .*meta"):
        op(**arguments)
    for key, x in CALLS[op].items():
        assert key == name or not isinstance(x, torch.Tensor) or torch.equal(x, arguments[key])
    op(**CALLS[op])  # with all of them in one place it works


def test_a_list_of_gates_on_two_devices():
    with pytest.raises(
        TypeError, match=r"log_alphas\[1\]: expected torch.float32 on cpu as the first has, got .* meta"
    ):
        ops.l0_penalties([vector(), vector().to("meta")], [0.5] * 2, [-0.1] * 2, [1.1] * 2)


def test_a_gradient_elsewhere_is_refused():
    """By autograd itself: what reaches a backward kernel is where its output was."""
    log_alpha = vector().requires_grad_()
    totals, _ = ops.gated_totals(vector(), log_alpha, **matrix(), n_targets=N_TARGETS, seed=SEED)
    for output in (ops.hard_concrete(log_alpha, SEED), totals):
        with pytest.raises(RuntimeError, match="meta"):
            output.backward(torch.ones_like(output, device="meta"))
