"""What a gated layer keeps for backward, and how many passes a training step takes."""

import gc

import pytest
import torch
from gated_layers import scatter
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from l0fast import L0Conv2d, L0Linear, SparseMLP

KINDS = {
    "small": (lambda: L0Linear(60, 50), (3, 60)),
    "large": (lambda: L0Linear(512, 520), (3, 512)),
    "rows": (lambda: L0Linear(512, 520, gate_dim=0), (3, 512)),
    "conv": (lambda: L0Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "channels": (lambda: L0Conv2d(3, 4, 3, structured=True), (2, 3, 6, 6)),
}


@pytest.fixture(params=KINDS)
def layer_and_input(request, native):
    make, shape = KINDS[request.param]
    return scatter(make()), torch.randn(shape)


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("input_gradient", [False, True])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_saves_parameters_input_and_masked_weight(layer_and_input, input_gradient, training):
    layer, x = layer_and_input
    layer.train(training)
    x.requires_grad_(input_gradient)
    saved = []
    with saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        y = layer(x)
        total = y.sum() + layer.get_l0_penalty()
    known = {storage(t) for t in (x, *layer.parameters())}
    extra = {storage(t): t for t in saved if storage(t) not in known and t.numel() > 1}  # a seed has one element
    weight = layer.weight.shape
    assert len(extra) <= 1 and all(t.shape in (weight, weight[::-1]) for t in extra.values())
    before = [t.clone() for t in saved]
    total.backward()
    for kept, value in zip(saved, before, strict=True):  # what a hook keeps is not written over
        assert torch.equal(kept, value)


def bytes_of_storages():
    """Of all tensors that Python or autograd's Python nodes hold."""
    gc.collect()
    plain = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]  # no fake tensors
    tensors = [
        o for o in plain if o.device.type == "cpu" and o.layout == torch.strided
    ]  # other tests leave sparse ones
    return sum({storage(t): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("backward", ["all", "input only", "none"])
def test_nothing_stays_after_a_step(layer_and_input, backward):
    """No masked weight outlives its graph, though the link to the penalty does."""
    layer, x = layer_and_input
    x.requires_grad_()
    before = bytes_of_storages()
    y = layer(x)
    if backward == "all":
        (y.sum() + layer.get_l0_penalty()).backward()
    elif backward == "input only":
        torch.autograd.grad(y.sum(), x)
    del y
    grads = sum(p.grad.untyped_storage().nbytes() for p in (x, *layer.parameters()) if p.grad is not None)
    assert bytes_of_storages() - before <= grads + 64


class Counting(TorchDispatchMode):
    """The ops of l0fast that run, by name; backward included."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        if name.startswith("l0fast::"):
            self.calls.append(name.removeprefix("l0fast::"))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("small", ["gated_weight", "l0_penalty", "gated_weight_backward"]),
        ("large", ["gated_weight", "l0_penalty", "empty_large", "gated_weight_backward_"]),
        ("rows", ["gated_weight", "l0_penalty", "empty_large", "gated_weight_backward"]),
        ("conv", ["gated_weight", "l0_penalty", "gated_weight_backward"]),
    ],
)
def test_a_step_is_one_pass_forward_and_one_backward(native, kind, expected):
    make, shape = KINDS[kind]
    layer, x = make(), torch.randn(shape)
    layer(x).sum().backward()
    with Counting() as counting:
        (layer(x).sum() + layer.get_l0_penalty()).backward()
    assert counting.calls == expected


def test_a_step_of_a_model(native):
    model = SparseMLP(600, 512, 10)
    with Counting() as counting:
        (model(torch.randn(2, 600)).sum() + model.get_l0_loss()).backward()
    assert sorted(counting.calls) == sorted(
        3 * ["gated_weight"]
        + ["l0_penalties"]
        + 2 * ["empty_large", "gated_weight_backward_"]
        + ["gated_weight_backward"]
    )


def test_gradients_of_a_large_layer_need_no_new_memory_for_the_gates(native):
    """The gate's gradient lies where the masked weight was."""
    layer, x = L0Linear(512, 520), torch.randn(3, 512)
    y = layer(x)
    masked_weight = storage(y.grad_fn.saved_tensors[1])
    y.sum().backward()
    assert storage(layer.weight_gates.qz_logits.grad) == masked_weight


def test_input_gradient_alone_computes_no_weight_gradient(native):
    layer, x = L0Linear(512, 520), torch.randn(3, 512, requires_grad=True)
    y = layer(x)
    with Counting() as counting:
        torch.autograd.grad(y.sum(), x)
    assert counting.calls == []
    layer.requires_grad_(False)
    y = layer(x)
    with Counting() as counting:
        y.sum().backward()
    assert counting.calls == []
