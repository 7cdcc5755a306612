"""The penalty shares the forward's backward pass where it can: every order of calls gives the same gradients."""

import copy
import gc

import pytest
import torch
from torch import nn
from wrap_models import SEED, fix_noise, make, output_in_torch, penalty_in_torch, scatter

from l0fast import L0Regularizer

LAM = 0.02


@pytest.fixture(params=["element", "mixed", "one parameter"])
def wrapped(monkeypatch, request):
    fix_noise(monkeypatch)
    module, _ = make("mlp")
    if request.param == "one parameter":  # nothing is joined: the flat tensors are views of the parameters
        module = nn.Linear(6, 3, bias=False).double()
    granularity = {"0.weight": ("head", 48)} if request.param == "mixed" else "element"
    if request.param == "mixed":  # a gate per element too, but outside the fused group
        module[0] = nn.Linear(6, 48, bias=False).double()
        module[2] = nn.Linear(48, 3).double()
        granularity = {"0.weight": "element", "2.bias": ("head", 3)}
    return scatter(L0Regularizer(module, LAM, granularity=granularity))


X = torch.randn(4, 6, dtype=torch.float64)


def run(wrapped, *calls) -> dict:
    """The gradients that these calls leave."""
    wrapped.zero_grad()
    for call in calls:
        call()
    return {name: p.grad for name, p in wrapped.named_parameters()}


def output(wrapped):
    return wrapped(X).square().sum()


def expected(wrapped, outputs: int, penalties: int) -> dict:
    """Of the one launch or the two, whatever the order: sums of separate gradients."""
    twin = copy.deepcopy(wrapped)
    got = run(twin, *[lambda: output(twin).backward()] * outputs)
    zero = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    out = {name: zero[name] if g is None else g.clone() for name, g in got.items()}
    twin = copy.deepcopy(wrapped)
    got = run(twin, *[lambda: penalty_in_torch(twin, LAM, 0).backward()] * penalties)
    return {name: out[name] + (0 if got[name] is None else got[name]) for name in out}


def same(got: dict, truth: dict) -> None:
    for name, grad in truth.items():
        value = torch.zeros_like(grad) if got[name] is None else got[name]
        torch.testing.assert_close(value, grad, rtol=1e-9, atol=1e-12, msg=name)


def test_the_output_alone_is_right(wrapped):
    if any(not layout.elementwise for layout in wrapped._layouts.values()):
        pytest.skip("two launches: other noise than the reference's one")
    got = run(wrapped, lambda: output(wrapped).backward())
    truth = run(copy.deepcopy(wrapped))
    twin = copy.deepcopy(wrapped)
    truth = run(twin, lambda: output_in_torch(twin, X, SEED).square().sum().backward())
    same(got, truth)


def test_orders(wrapped):
    one = expected(wrapped, 1, 1)
    two = expected(wrapped, 2, 1)
    two_penalties = expected(wrapped, 1, 2)
    same(run(wrapped, lambda: (output(wrapped) + wrapped.regularization()).backward()), one)
    same(run(wrapped, lambda: (wrapped.regularization() + output(wrapped)).backward()), one)

    def apart(penalty_first):
        out, penalty = output(wrapped), wrapped.regularization()
        for loss in (penalty, out) if penalty_first else (out, penalty):
            loss.backward()

    same(run(wrapped, lambda: apart(True)), one)
    same(run(wrapped, lambda: apart(False)), one)

    def late():
        output(wrapped).backward()
        wrapped.regularization().backward()

    same(run(wrapped, late), one)

    def twice():
        a, b = output(wrapped), output(wrapped)
        (a + b + wrapped.regularization()).backward()

    same(run(wrapped, twice), two)
    both = lambda: (output(wrapped) + wrapped.regularization() + wrapped.regularization()).backward()  # noqa: E731
    same(run(wrapped, both), two_penalties)

    def retained():
        loss = output(wrapped) + wrapped.regularization()
        loss.backward(retain_graph=True)
        wrapped.zero_grad()
        loss.backward()

    same(run(wrapped, retained), one)


def test_looking_at_the_masked_parameters_changes_nothing(wrapped):
    """Backward writes into memory that nobody else holds, and only into that."""
    truth = expected(wrapped, 1, 0)
    masked = wrapped.masked_parameters()
    before = {name: v.detach().clone() for name, v in masked.items()}
    got = run(wrapped, lambda: torch.func.functional_call(wrapped.module, masked, (X,)).square().sum().backward())
    same(got, truth)
    assert all(torch.equal(v.detach(), before[name]) for name, v in masked.items())


def test_after_changes(wrapped):
    output(wrapped)
    wrapped.temperature = 0.3
    same(run(wrapped, lambda: wrapped.regularization().backward()), expected(wrapped, 0, 1))
    output(wrapped)
    with torch.no_grad():
        for p in wrapped.log_alpha.parameters():
            p.mul_(0.5)
        wrapped.regularization()
    same(run(wrapped, lambda: wrapped.regularization().backward()), expected(wrapped, 0, 1))
    output(wrapped)
    wrapped.eval()
    same(run(wrapped, lambda: (output(wrapped) + wrapped.regularization()).backward()), expected(wrapped, 1, 1))


@pytest.mark.parametrize("frozen", ["module", "log_alpha", "0.weight"])
def test_frozen_parts(monkeypatch, frozen):
    fix_noise(monkeypatch)
    wrapped = scatter(L0Regularizer(make("mlp")[0], LAM))
    truth = expected(wrapped, 1, 1)
    part = {"module": wrapped.module, "log_alpha": wrapped.log_alpha}.get(frozen)
    (part or wrapped.module.get_parameter(frozen)).requires_grad_(False)
    got = run(wrapped, lambda: (output(wrapped) + wrapped.regularization()).backward() if wrapped else None)
    for name, p in wrapped.named_parameters():
        assert (got[name] is not None) == p.requires_grad
        if p.requires_grad:
            torch.testing.assert_close(got[name], truth[name])


def test_a_weight_changed_before_backward_is_an_error():
    """A single parameter is not copied on the way, so that torch's rule holds: no change in place before backward."""
    wrapped = L0Regularizer(nn.Linear(6, 3, bias=False).double(), LAM)
    loss = output(wrapped)
    with torch.no_grad():
        wrapped.module.weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"changed in place|modified by an inplace"):
        loss.backward()


def test_no_graph_is_left_behind():
    wrapped = L0Regularizer(make("mlp")[0], LAM)
    gc.collect()

    def alive():
        return sum(isinstance(o, torch.Tensor) and o.grad_fn is not None for o in gc.get_objects())

    before = alive()
    for _ in range(3):
        output(wrapped)
    wrapped.regularization()
    gc.collect()
    assert alive() <= before + 1
