"""The fast path of L0Linear is taken where it may be, and only there."""

import pytest
import torch

from l0fast import L0Linear, _linked


def ops_called(work) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    return {event.key for event in profile.key_averages() if event.key.startswith("l0fast::")}


@pytest.mark.parametrize("inner", [False, True], ids=["first layer", "inner layer"])
def test_gradients_are_made_in_place(native, inner):
    layer = L0Linear(256, 256)
    assert layer.weight.numel() >= _linked.LARGE
    x = torch.randn(4, 256, requires_grad=inner)
    (layer(x).sum() + layer.get_l0_penalty()).backward()  # torch sets itself up
    called = ops_called(lambda: (layer(x).sum() + layer.get_l0_penalty()).backward())
    assert called == {
        *("l0fast::gated_weight", "l0fast::gated_weight_backward_", "l0fast::l0_penalty", "l0fast::empty_large")
    }


def test_not_in_place_where_the_graph_is_kept(native):
    layer = L0Linear(256, 256)
    loss = layer(torch.randn(4, 256)).square().sum()
    assert "l0fast::gated_weight_backward" in ops_called(lambda: loss.backward(retain_graph=True))
    first = layer.weight_gates.qz_logits.grad.clone()
    loss.backward()
    torch.testing.assert_close(layer.weight_gates.qz_logits.grad, 2 * first)


def test_not_in_place_where_somebody_keeps_what_autograd_saves(native):
    layer = L0Linear(256, 256)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = layer(torch.randn(4, 256)).square().sum()
    before = [t.clone() for t in kept]
    loss.backward()
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))


def test_small_layers_use_torchs_own_linear(native):
    layer = L0Linear(8, 8)
    assert "l0fast::empty_large" not in ops_called(lambda: layer(torch.randn(4, 8)).sum().backward())
