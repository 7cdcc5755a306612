"""L0 gates on activities, the dense layer with two regularisers, and the functional regulariser."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import l0fast
from l0fast import reference
from l0fast.activity import L0Activation, L0Dense, collect_regularization_losses, l0_regularizer


def gate_of(gates, seed=None, stream=0):
    """The gates of a module in float64, by the specification."""
    options = gates._gate_options()
    return reference.hard_concrete(gates.qz_logits.detach().double(), seed, stream=stream, **options)


@pytest.mark.parametrize("shape, feature_dim", [((7, 5), -1), ((5, 7), 0), ((2, 7, 5), -1), ((3, 5, 4), 1)])
def test_activation_gates_features(shape, feature_dim):
    layer, x = L0Activation(5, feature_dim=feature_dim, seed=11), torch.randn(shape, requires_grad=True)
    y = layer(x)
    spread = [-1 if d == feature_dim % len(shape) else 1 for d in range(len(shape))]
    z = gate_of(layer.gates, torch.tensor([11])).view(spread)
    torch.testing.assert_close(y.double(), x.double() * z, rtol=1e-6, atol=1e-7)
    y.sum().backward()
    torch.testing.assert_close(x.grad.double(), z.expand(shape), rtol=1e-6, atol=1e-6)
    assert layer.gates.qz_logits.grad.abs().sum() > 0


def test_activation_gradient_of_the_gates_is_the_references():
    layer, x = L0Activation(6, seed=4, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)
    (layer(x) ** 2).sum().backward()
    a = layer.gates.qz_logits.detach().clone().requires_grad_()
    z = reference.hard_concrete(a, torch.tensor([4]), **layer.gates._gate_options())
    ((x * z) ** 2).sum().backward()
    torch.testing.assert_close(layer.gates.qz_logits.grad, a.grad)


def test_seed_gives_the_same_noise_at_each_construction():
    x = torch.ones(2, 50)
    first, second = L0Activation(50, seed=3), L0Activation(50, seed=3)
    draws = [first(x) for _ in range(2)]
    assert torch.equal(draws[0], second(x)) and torch.equal(draws[1], second(x))
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], L0Activation(50, seed=4)(x))
    resumed = L0Activation(50, seed=3)
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(first(x), resumed(x))
    first.draws.zero_()
    assert torch.equal(draws[0], first(x))
    state = torch.get_rng_state()
    first(x)
    assert torch.equal(state, torch.get_rng_state())


def test_without_seed_torch_governs():
    layer, x = L0Activation(50), torch.ones(2, 50)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(first, layer(x)) and not torch.equal(first, layer(x))


def test_activation_in_evaluation():
    layer, x = L0Activation(5, seed=1).eval(), torch.randn(3, 5)
    torch.testing.assert_close(layer(x).double(), x.double() * gate_of(layer.gates), rtol=1e-6, atol=1e-7)
    assert torch.equal(layer(x), layer(x)) and not layer.draws


def test_autocast_and_half_input():
    for seed in (1, None):
        y = L0Activation(5, seed=seed)(torch.randn(3, 5, dtype=torch.bfloat16))
        assert y.shape == (3, 5) and y.dtype == torch.bfloat16


def test_regularizer_masks_and_prices():
    regularizer, tensor = l0_regularizer(0.01, init_sparsity=0.3), torch.randn(4, 6, requires_grad=True)
    masked, loss = regularizer.eval()(tensor)
    torch.testing.assert_close(masked.double(), tensor.double() * gate_of(regularizer.gates), rtol=1e-6, atol=1e-7)
    options = regularizer.gates._gate_options()
    expected = 0.01 * reference.l0_penalty(regularizer.gates.qz_logits.double(), **options)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    (masked.sum() + loss).backward()
    assert tensor.grad is not None and regularizer.gates.qz_logits.grad.abs().sum() > 0


def test_losses_of_a_model_are_collected_once_each_in_any_order():
    shared = L0Dense(6, 6, torch.relu, kernel_regularizer=1e-2, bias_regularizer=1e-3)
    model = nn.Sequential(L0Activation(6, reg_const=0.5), shared, shared, nn.Linear(6, 2))
    before = [loss.item() for loss in collect_regularization_losses(model)]
    model(torch.randn(3, 6)).sum().backward()
    losses = collect_regularization_losses(model)
    assert len(losses) == 3 and before == [loss.item() for loss in losses]
    parts = [model[0], shared.kernel_regularizer, shared.bias_regularizer]
    expected = [c * part.get_l0_penalty().item() for c, part in zip([0.5, 1e-2, 1e-3], parts, strict=True)]
    assert before == pytest.approx(expected)
    total = l0fast.compute_l0_penalty(model)
    assert total.item() == pytest.approx(sum(part.get_l0_penalty().item() for part in parts))
    model.zero_grad()
    sum(losses).backward()
    assert all(part.gates.qz_logits.grad.abs().sum() > 0 for part in parts)
    assert collect_regularization_losses(nn.Linear(2, 2)) == []


def test_dense_is_linear_with_masked_parameters():
    layer = L0Dense(5, 3, torch.tanh, kernel_regularizer=1e-2, bias_regularizer=1e-2, bias_initializer=nn.init.ones_)
    layer.eval()
    x, zk, zb = torch.randn(4, 5), gate_of(layer.kernel_regularizer.gates), gate_of(layer.bias_regularizer.gates)
    expected = torch.tanh(F.linear(x.double(), layer.weight.double() * zk, layer.bias.double() * zb))
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-6)
    plain = layer.materialize()
    torch.testing.assert_close(plain(x), layer(x))
    assert not any("gates" in name for name, _ in plain.named_parameters())
    assert L0Dense(5, 3)(x).shape == (4, 3) and L0Dense(5, 3, use_bias=False).bias is None


def test_initialisers_fill_in_place():
    layer = L0Dense(5, 3, kernel_initializer=nn.init.zeros_, bias_initializer=lambda b: b.fill_(2.0))
    assert not layer.weight.any() and (layer.bias == 2).all()


def test_state_dict_and_copies():
    layer = L0Dense(5, 3, kernel_regularizer=1e-2)
    assert set(layer.state_dict()) == {"weight", "bias", "kernel_regularizer.gates.qz_logits"}
    other = L0Dense(5, 3, kernel_regularizer=1e-2)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(other.eval()(x), layer.eval()(x)) and torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_gates_close_under_their_price():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = x[:, :2].sum(1, keepdim=True)
    model = nn.Sequential(L0Activation(8, reg_const=0.02, init_sparsity=0.2), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (F.mse_loss(model(x), y) + sum(collect_regularization_losses(model))).backward()
        optimizer.step()
    open_gates = model[0].gates.get_active_prob() > 0.5
    assert open_gates.tolist() == [True, True] + [False] * 6


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: L0Activation(0), "n_features: expected at least 1, got 0"),
        (lambda: L0Activation(3, reg_const=-1), "reg_const: expected a finite non-negative number, got -1"),
        (lambda: L0Activation(3, feature_dim=1.0), "feature_dim: expected an int, got 1.0"),
        (lambda: L0Activation(3, seed=-1), "seed: expected at least 0, got -1"),
        (lambda: L0Activation(3)(torch.ones(2, 4)), r"x: expected 3 features along dimension -1, got \[2, 4\]"),
        (lambda: L0Activation(3, feature_dim=2)(torch.ones(2, 3)), "x: expected 3 features along dimension 2"),
        (lambda: L0Activation(3)([1, 2, 3]), "x: expected a floating torch.Tensor, got list"),
        (
            lambda: L0Activation(3)(torch.ones(2, 3, dtype=torch.int64)),
            "x: expected a floating torch.Tensor, got torch.int64",
        ),
        (lambda: l0_regularizer("a"), "scale: expected a number, got str"),
        (lambda: l0_regularizer(float("nan")), "scale: expected a finite non-negative number, got nan"),
        (lambda: l0_regularizer(1.0, scope=3), "scope: expected a str or None, got int"),
        (lambda: l0_regularizer(1.0)(torch.ones(3, dtype=torch.int64)), "tensor: expected a floating torch.Tensor"),
        (lambda: l0_regularizer(1.0)(torch.tensor(1.0)), "tensor: expected at least one dimension and one element"),
        (lambda: l0_regularizer(1.0).build(torch.ones(3))(torch.ones(4)), r"tensor: expected shape \[3\], for which"),
        (lambda: l0_regularizer(1.0).get_l0_penalty(), "l0_regularizer: expected a call with its tensor"),
        (lambda: L0Dense(3, 2, kernel_regularizer=-1), "kernel_regularizer: scale: expected a finite non-negative"),
        (lambda: L0Dense(3, 2, "relu"), "activation: expected a function or None, got str"),
        (lambda: L0Dense(3, 2, use_bias=False, bias_regularizer=1.0), "bias_regularizer: expected None where use_bias"),
        (lambda: collect_regularization_losses(3), "model: expected a torch.nn.Module, got int"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        call()


def test_compile_without_graph_breaks():
    layer = nn.Sequential(L0Activation(5), L0Dense(5, 3, torch.relu, kernel_regularizer=1e-2)).eval()
    x = torch.randn(2, 5)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_materialize_and_prune():
    torch.manual_seed(0)
    dense = L0Dense(6, 4, torch.relu, kernel_regularizer=1e-2, bias_regularizer=1e-2)
    model = nn.Sequential(L0Activation(6), dense, nn.Linear(4, 2))
    for module in (model[0], dense.kernel_regularizer, dense.bias_regularizer):
        nn.init.normal_(module.gates.qz_logits, std=3)
    dense.weight.requires_grad_(False)
    plain, x = l0fast.pruning.materialize(model), torch.randn(5, 6)
    assert model.training and not any("gates" in name for name in plain.state_dict())
    torch.testing.assert_close(plain(x), model.eval()(x))
    assert not plain[1][0].weight.requires_grad and plain[1][0].bias.requires_grad
    closed = dense.kernel_regularizer.gates.get_active_prob() <= 0.5
    pruned = l0fast.prune_model(model, 0.5, inplace=False)
    assert torch.equal(pruned[1].weight == 0, closed) and not (dense.weight == 0).any()
    torch.testing.assert_close(pruned(x), model(x))
    with pytest.raises(TypeError, match="materialize: '1' is an l0_regularizer"):
        l0fast.pruning.materialize(nn.Sequential(nn.Linear(2, 2), l0_regularizer(1.0)))
