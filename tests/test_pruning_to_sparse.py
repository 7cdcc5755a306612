"""SparseLinear and to_sparse."""

import importlib
import io

import pytest
import torch
from torch import nn

import l0fast as l0
from l0fast.pruning import SparseLinear, materialize, to_sparse

MODULE = importlib.import_module("l0fast.pruning.to_sparse")  # the package has the function under this name


def sparse_linear(inputs, outputs, density, bias=True, dtype=None):
    layer = nn.Linear(inputs, outputs, bias, dtype=dtype)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(outputs, inputs) < density)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs", "density"), [(1, 1, 1.0), (7, 5, 0.3), (300, 40, 0.02), (9, 4, 0.0)])
@pytest.mark.parametrize("lead", [(), (1,), (6,), (2, 3), (0,)])
def test_equals_the_dense_layer(inputs, outputs, density, bias, dtype, lead):
    dense = sparse_linear(inputs, outputs, density, bias, dtype)
    made = SparseLinear.from_linear(dense)
    x = torch.randn(*lead, inputs, dtype=dtype)
    y = made(x)
    assert y.shape == (*lead, outputs) and y.is_contiguous() and y.dtype == dtype
    torch.testing.assert_close(y, dense(x))
    assert made.values.numel() == dense.weight.count_nonzero() and torch.equal(made.matrix().to_dense(), dense.weight)


def test_gradients_reach_the_input_and_the_bias():
    dense = sparse_linear(6, 4, 0.4, dtype=torch.float64)
    made = SparseLinear.from_linear(dense)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    ours = torch.autograd.grad(made(x).square().sum(), (x, made.bias))
    theirs = torch.autograd.grad(dense(x).square().sum(), (x, dense.bias))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_state_dict_goes_through_a_file():
    made = SparseLinear.from_linear(sparse_linear(30, 20, 0.1))
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    fresh = SparseLinear(30, 20)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 30)
    assert torch.equal(fresh(x), made(x)) and repr(fresh) == repr(made)


@pytest.mark.parametrize("broken", ["column", "rows", "count"])
def test_indices_that_reach_outside_are_refused(broken):
    made = SparseLinear.from_linear(sparse_linear(30, 20, 0.1))
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    if broken == "column":
        state["col_indices"][3] = 30
    elif broken == "rows":
        state["crow_indices"][-1] += 5
    else:
        state["values"] = state["values"][:-1]
    fresh = nn.Sequential(SparseLinear(30, 20))
    with pytest.raises(ValueError, match=r"0.crow_indices, col_indices, values: expected a CSR matrix of shape"):
        fresh.load_state_dict({f"0.{name}": tensor for name, tensor in state.items()})


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"input: expected a last dimension of 7, got shape \[2, 6\]"):
        SparseLinear(7, 3)(torch.randn(2, 6))


def gated() -> nn.Module:
    model = nn.Sequential(l0.L0Linear(400, 400), nn.ReLU(), l0.L0Linear(400, 300), nn.Linear(300, 4))
    with torch.no_grad():
        for layer, share in ((model[0], 0.99), (model[2], 0.3)):
            draw = torch.rand(layer.gates.qz_logits.shape)
            layer.gates.qz_logits.copy_(torch.where(draw < share, -6.0, 6.0))
    return model


def test_converts_what_is_measured_faster(monkeypatch):
    raced = []

    def race(layers, batch_size):
        raced.append((type(layers[0]), type(layers[1]), batch_size))
        return [100.0, 40.0]

    monkeypatch.setattr(MODULE, "_race", race)
    model = gated()
    made, choices = to_sparse(model, batch_size=32)
    assert raced == [(nn.Linear, SparseLinear, 32)]  # the others are too dense to be tried
    assert [type(made[i]) for i in (0, 2, 3)] == [SparseLinear, nn.Linear, nn.Linear]
    assert [(c.name, c.converted, c.sparse_us) for c in choices] == [
        ("0", True, 40.0),
        ("2", False, None),
        ("3", False, None),
    ]
    assert choices[0].density == pytest.approx(0.01, abs=0.005) and choices[2].density == 1
    x = torch.randn(5, 400)
    torch.testing.assert_close(made(x), model.eval()(x))
    monkeypatch.setattr(MODULE, "_race", lambda *_: [100.0, 95.0])
    assert not any(choice.converted for choice in to_sparse(model)[1])


def test_a_large_nearly_empty_layer_is_faster():
    """The real clock: at 1 % of a million weights the dense product does a hundred times the work."""
    model = nn.Sequential(sparse_linear(1024, 1024, 0.01))
    made, (choice,) = to_sparse(model)
    assert choice.converted and type(made[0]) is SparseLinear and choice.sparse_us < choice.dense_us


def test_max_density_needs_no_clock():
    model = gated()
    made, choices = to_sparse(model, max_density=0.8)
    assert [type(made[i]) for i in (0, 2, 3)] == [SparseLinear, SparseLinear, nn.Linear]
    assert all(choice.dense_us is None for choice in choices)
    assert type(model[0]) is l0.L0Linear and model.training
    x = torch.randn(5, 400)
    torch.testing.assert_close(made(x), materialize(model)(x))
    assert to_sparse(model, max_density=0.8, inplace=True)[0] is model and type(model[0]) is SparseLinear


def test_the_model_itself_shared_layers_and_half_precision():
    assert type(to_sparse(l0.L0Linear(4, 4), max_density=1.0)[0]) is SparseLinear
    layer = nn.Linear(4, 4)
    made, choices = to_sparse(nn.ModuleList([layer, nn.Sequential(layer)]), max_density=1.0)
    assert made[0] is made[1][0] and len(choices) == 1
    assert not to_sparse(nn.Linear(4, 4).bfloat16(), max_density=1.0)[1][0].converted


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, r"batch_size: expected at least 1, got 0"),
        ({"batch_size": 1.5}, TypeError, r"batch_size"),
        ({"max_density": 2}, ValueError, r"max_density: expected a probability in \[0, 1\], got 2"),
        ({"model": 3}, TypeError, r"model: expected a torch.nn.Module"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        to_sparse(**{"model": nn.Linear(2, 2), **options})
