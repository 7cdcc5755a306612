"""A penalty that shares the backward pass of its weight must be unnoticeable: every order of calls of plain torch."""

import pytest
import torch
from gated_layers import fix_noise, scatter
from plain_layers import KINDS, Plain, assert_same, loss, parameters, together, weight_of
from torch.utils.checkpoint import checkpoint


@pytest.fixture(params=KINDS)
def both(request, monkeypatch):
    """A layer, the same in plain torch, and an input for both."""
    fix_noise(monkeypatch)
    make, shape = KINDS[request.param]
    layer = scatter(make()).double()  # one gate in a million lies on another side of a kink in float32
    return layer, Plain(layer), torch.randn(shape).double()


def before_forward(m, x):
    p = m.get_l0_penalty()
    (loss(m(x)) + 0.3 * p).backward()


def penalty_twice(m, x):
    y = m(x)
    (loss(y) + 0.3 * m.get_l0_penalty() + m.get_l0_penalty().square() * 0.01).backward()


def penalty_after_backward(m, x):
    loss(m(x)).backward()
    m.get_l0_penalty().backward()
    m.get_l0_penalty().backward()


def penalty_first(m, x):
    y, p = m(x), m.get_l0_penalty()
    p.backward()
    loss(y).backward()


def loss_first(m, x):
    y, p = m(x), m.get_l0_penalty()
    loss(y).backward()
    p.backward()


def penalty_alone(m, x):
    m(x)
    m.get_l0_penalty().backward()


def retained_twice(m, x):
    total = loss(m(x)) + 0.3 * m.get_l0_penalty()
    total.backward(retain_graph=True)
    total.backward(retain_graph=True)
    total.backward()


def retained_separately(m, x):
    y, p = m(x), m.get_l0_penalty()
    loss(y).backward(retain_graph=True)
    p.backward(retain_graph=True)
    (loss(y) + p).backward()


def two_forwards(m, x):
    first, second = m(x), m(2 * x)
    (loss(first) + 0.3 * m.get_l0_penalty() + 2 * loss(second)).backward()


def two_forwards_backwards_crossed(m, x):
    first = m(x)
    p = m.get_l0_penalty()
    second = m(2 * x)
    q = m.get_l0_penalty()
    loss(second).backward()
    p.backward()
    loss(first).backward()
    q.backward()


def penalty_only_never_forward(m, x):
    m.get_l0_penalty().backward()


def forward_without_gradient_between(m, x):
    y = m(x)
    with torch.no_grad():
        m(x), m.get_l0_penalty()
    (loss(y) + m.get_l0_penalty()).backward()


def backward_in_parts(m, x):
    y = m(x)
    total = loss(y) + 0.3 * m.get_l0_penalty()
    total.backward(inputs=[m.gates.qz_logits], retain_graph=True)
    total.backward(inputs=[weight_of(m)])


def micro_batches(m, x):
    for k in range(4):
        ((loss(m(x * k)) + m.get_l0_penalty()) / 4).backward()


def input_gradient_first(m, x):
    x = x.clone().requires_grad_()
    y = m(x)
    torch.autograd.grad(loss(y), x, retain_graph=True)
    (loss(y) + m.get_l0_penalty()).backward()


def zeroed_in_place(m, x):
    for _ in range(3):
        for p in parameters(m):
            if p.grad is not None:
                p.grad.zero_()
        together(m, x)


def temperature_changed_between(m, x):
    y = m(x)
    m.gates.temperature = 0.9
    p = m.get_l0_penalty()
    m.gates.temperature = 0.3
    (loss(y) + p + 2 * m.get_l0_penalty()).backward()


def eval_between(m, x):
    y = m(x)
    m.eval()
    z = m(x)
    (loss(y) + m.get_l0_penalty() + loss(z)).backward()
    m.train()


def checkpointed(m, x):
    y = checkpoint(m, x, use_reentrant=False)
    (loss(y) + m.get_l0_penalty()).backward()
    m.get_l0_penalty().backward()


def frozen_weight(m, x):
    weight_of(m).requires_grad_(False)
    together(m, x)


def frozen_gates(m, x):
    m.gates.qz_logits.requires_grad_(False)
    y = m(x)
    assert not m.get_l0_penalty().requires_grad
    loss(y).backward()


def frozen_after_forward(m, x):
    y = m(x)
    m.gates.qz_logits.requires_grad_(False)
    assert not m.get_l0_penalty().requires_grad
    m.gates.qz_logits.requires_grad_(True)
    (loss(y) + m.get_l0_penalty()).backward()


def frozen_gates_and_changed_weight(m, x):
    """Plain torch then does not read the weight again."""
    m.gates.qz_logits.requires_grad_(False)
    y = m(x)
    with torch.no_grad():
        weight_of(m).mul_(1.5)
    loss(y).backward()


def all_frozen(m, x):
    for p in parameters(m):
        p.requires_grad_(False)
    x = x.clone().requires_grad_()
    loss(m(x)).backward()
    weight_of(m).grad = x.grad.sum().expand_as(weight_of(m)).clone()


def weight_changed_before_penaltys_backward(m, x):
    """As where weights and gates have optimizers of their own, one stepped before the other's loss."""
    y, p = m(x), m.get_l0_penalty()
    loss(y).backward()
    with torch.no_grad():
        weight_of(m).mul_(1.5)
    p.backward()


ORDERS = [
    value
    for value in list(globals().values())
    if getattr(value, "__code__", None) and value.__code__.co_varnames[:2] == ("m", "x")
]


def test_orders_are_found():
    assert len(ORDERS) == 26


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda f: f.__name__)
def test_any_order(both, order, training):
    layer, plain, x = both
    for m in (layer, plain):
        m.train(training)
        order(m, x)
    assert_same(layer, plain, order.__name__)
    torch.testing.assert_close(layer.get_l0_penalty(), plain.get_l0_penalty())
