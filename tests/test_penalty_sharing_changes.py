"""The penalty's shared backward pass where parameters change, are copied or watched in between."""

import copy

import pytest
import torch
from gated_layers import fix_noise, scatter
from plain_layers import KINDS, Plain, assert_same, loss, parameters, together, weight_of
from torch import nn


@pytest.fixture(params=KINDS)
def both(request, monkeypatch):
    """A layer, the same in plain torch, and an input for both."""
    fix_noise(monkeypatch)
    make, shape = KINDS[request.param]
    layer = scatter(make()).double()  # one gate in a million lies on another side of a kink in float32
    return layer, Plain(layer), torch.randn(shape).double()


def in_place(m):
    with torch.no_grad():
        for p in parameters(m):
            p.mul_(1.3)


def through_data(m):
    for p in parameters(m):
        p.data.mul_(1.3)


def other_data(m):
    for p in parameters(m):
        p.data = p.data * 1.3


def adam_step(m):
    torch.optim.Adam(parameters(m), lr=0.1).step()


def fused_adam_step(m):
    torch.optim.Adam(parameters(m), lr=0.1, fused=True).step()


def loaded(m):
    m.load_state_dict({key: value * 1.3 for key, value in m.state_dict().items()})


def assigned(m):
    m.load_state_dict({key: value * 1.3 for key, value in m.state_dict().items()}, assign=True)


def replaced(m):
    old = m.gates.qz_logits
    m.gates.qz_logits = nn.Parameter(old.detach() * 1.3)
    while m.gates.qz_logits._version < old._version:  # the version alone must not make them the same
        torch.autograd.graph.increment_version(m.gates.qz_logits)


def narrowed(m):
    m.float()


CHANGES = [in_place, through_data, other_data, adam_step, fused_adam_step, loaded, assigned, replaced, narrowed]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_parameters_changed_in_between(both, change):
    """A penalty after the change is that of the new parameters, value and gradient, whatever forward left behind."""
    layer, plain, x = both
    for m in (layer, plain):
        together(m, x)
        change(m)
        for p in parameters(m):
            p.grad = None
        m.get_l0_penalty().backward()
    torch.testing.assert_close(layer.get_l0_penalty(), plain.get_l0_penalty())
    assert_same(layer, plain, change.__name__)
    for m in (layer, plain):
        together(m, x.to(weight_of(m).dtype))
    assert_same(layer, plain, f"the next step after {change.__name__}")


def test_weights_given_other_data_before_backward(both):
    """Autograd does not see it. As in plain torch: the gates of the forward pass, and the new weight."""
    layer, plain, x = both
    for m in (layer, plain):
        total = loss(m(x)) + m.get_l0_penalty()
        weight_of(m).data = weight_of(m).data * 1.3
        total.backward()
    assert_same(layer, plain)


@pytest.mark.parametrize("which", ["weight", "logits"])
@pytest.mark.parametrize("shared", [False, True])
def test_backward_after_a_change_in_place_is_refused(both, which, shared):
    """As plain torch refuses it, in one clear message."""
    layer, plain, x = both
    for m in (layer, plain):
        total = loss(m(x)) + (m.get_l0_penalty() if shared else 0)
        with torch.no_grad():
            (weight_of(m) if which == "weight" else m.gates.qz_logits).add_(1)
        with pytest.raises(RuntimeError, match=r"version|modified by an inplace operation"):
            total.backward()


def test_grad_of_the_penalty_alone(both):
    layer, plain, x = both
    for m in (layer, plain):
        m(x)
        p = m.get_l0_penalty()
        weight, logits = torch.autograd.grad(p, (weight_of(m), m.gates.qz_logits), allow_unused=True)
        assert weight is None
        m.gates.qz_logits.grad = logits
        with pytest.raises(RuntimeError, match=r"not have been used|does not require grad|unused"):
            torch.autograd.grad(m.get_l0_penalty(), weight_of(m))
    assert_same(layer, plain)


def test_no_grad_and_inference_mode(both):
    layer, plain, x = both
    layer(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert not layer.get_l0_penalty().requires_grad
            torch.testing.assert_close(layer.get_l0_penalty(), plain.get_l0_penalty())
            layer(x)
    together(layer, x), together(plain, x)
    assert_same(layer, plain)


def test_copies_after_a_forward(both):
    layer, plain, x = both
    y = layer(x)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.gates.qz_logits.mul_(1.3)
        plain.gates.qz_logits.mul_(1.3)
    for m in (twin, plain):
        m.get_l0_penalty().backward()
    assert layer.gates.qz_logits.grad is None
    assert_same(twin, plain)
    loss(y).backward()


def test_gradients_kept_by_the_user_stay(both):
    """The buffers of one step are not those of the next."""
    layer, _, x = both
    kept = []
    for _ in range(3):
        layer.zero_grad(set_to_none=True)
        together(layer, x)
        kept.append([(p.grad, p.grad.clone()) for p in layer.parameters()])
    for step in kept:
        for now, then in step:
            assert torch.equal(now, then)
    pointers = [now.data_ptr() for step in kept for now, _ in step]
    assert len(set(pointers)) == len(pointers)


def test_gradients_accumulate_over_retained_graphs(both):
    """v must not have been written over by the first pass: the second gives the same."""
    layer, _, x = both
    total = loss(layer(x)) + layer.get_l0_penalty()
    first = torch.autograd.grad(total, list(layer.parameters()), retain_graph=True)
    second = torch.autograd.grad(total, list(layer.parameters()), retain_graph=True)
    third = torch.autograd.grad(total, list(layer.parameters()))
    for a, b, c in zip(first, second, third, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-6)


def test_hooks_on_parameters_see_one_sum(both):
    layer, plain, x = both
    counts = []
    for m in (layer, plain):
        seen = []
        for p in parameters(m):
            p.register_hook(lambda g, seen=seen: seen.append(g.clone()))
            p.register_post_accumulate_grad_hook(lambda p, seen=seen: seen.append(p.grad.clone()))
        together(m, x)
        counts.append(len(seen))
    assert counts[0] == counts[1] == 2 * len(parameters(plain))
    assert_same(layer, plain)
