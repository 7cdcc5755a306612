"""The gate ops by themselves, at a million gates: l0fast, its reference, and plain torch as l0-python writes it.

    pytest benchmarks/test_ops_benchmark.py --benchmark-enable --benchmark-only

Without --benchmark-enable each case runs once, untimed: pyproject.toml turns timing off for the tests.
"""

import math

import common  # noqa: F401  (finds the clone's own l0fast)
import numpy as np
import pytest
import torch

from l0fast import constants as c
from l0fast import ops, reference

GATES = 1_000_000
TARGETS, PER_COLUMN = 2_000, 4


def torch_hard_concrete(log_alpha, seed=None):
    a = log_alpha.clamp(-c.LOG_ALPHA_BOUND, c.LOG_ALPHA_BOUND)
    u = torch.rand_like(a).clamp(c.UNIFORM_EPS, 1 - c.UNIFORM_EPS)
    s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + a) / c.BETA)
    return (s * (c.ZETA - c.GAMMA) + c.GAMMA).clamp(0, 1)


def torch_l0_penalty(log_alpha):
    a = log_alpha.clamp(-c.LOG_ALPHA_BOUND, c.LOG_ALPHA_BOUND)
    return torch.sigmoid(a - c.BETA * math.log(-c.GAMMA / c.ZETA)).sum()


def torch_gated_totals(indptr, rows, values, n_targets):
    """A COO product, as l0-python does it."""
    columns = torch.repeat_interleave(torch.arange(len(indptr) - 1), indptr.diff())
    M = torch.sparse_coo_tensor(torch.stack([rows.long(), columns]), values, (n_targets, len(indptr) - 1))

    def totals(log_weight, log_alpha):
        weights = torch.exp(log_weight) * torch_hard_concrete(log_alpha)
        return torch.sparse.mm(M, weights.unsqueeze(1)).squeeze(1), torch_l0_penalty(log_alpha)

    return totals


@pytest.fixture(scope="module")
def log_alpha():
    return torch.randn(GATES, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture(scope="module")
def matrix():
    rows = np.random.default_rng(0).integers(0, TARGETS, GATES * PER_COLUMN, dtype=np.int32)
    indptr = torch.arange(0, GATES * PER_COLUMN + 1, PER_COLUMN)
    return indptr, torch.from_numpy(rows), torch.ones(GATES * PER_COLUMN), TARGETS


def run(benchmark, work, inputs, backward):
    """Times work(*inputs), or that and the gradient of the sum of what it returns."""
    inputs = [tensor.clone().requires_grad_(backward) for tensor in inputs]

    def once():
        outputs = work(*inputs)
        if backward:
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            torch.autograd.grad(sum(output.sum() for output in outputs), inputs)
        return outputs

    benchmark.pedantic(once, rounds=5, warmup_rounds=1)


BACKWARD = pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
WHO = pytest.mark.parametrize("who", ["l0fast", "reference", "torch"])
SEED = torch.tensor([1])


@BACKWARD
@WHO
@pytest.mark.benchmark(group="hard_concrete")
def test_hard_concrete(benchmark, who, backward, log_alpha):
    work = {"l0fast": ops.hard_concrete, "reference": reference.hard_concrete, "torch": torch_hard_concrete}[who]
    run(benchmark, lambda a: work(a, SEED), [log_alpha], backward)


@BACKWARD
@WHO
@pytest.mark.benchmark(group="l0_penalty")
def test_l0_penalty(benchmark, who, backward, log_alpha):
    work = {"l0fast": ops.l0_penalty, "reference": reference.l0_penalty, "torch": torch_l0_penalty}[who]
    run(benchmark, work, [log_alpha], backward)


@BACKWARD
@WHO
@pytest.mark.benchmark(group="gated_totals")
def test_gated_totals(benchmark, who, backward, log_alpha, matrix):
    if who == "torch":
        work = torch_gated_totals(*matrix)
    else:
        op = {"l0fast": ops.gated_totals, "reference": reference.gated_totals}[who]

        def work(log_weight, log_alpha):
            return op(log_weight, log_alpha, *matrix, SEED)

    run(benchmark, work, [torch.zeros(GATES), log_alpha], backward)
