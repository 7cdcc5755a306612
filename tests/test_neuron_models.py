"""The models: shapes, penalties, counts, averages, checkpoints, and the plain networks they become."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from l0fast.neuron import L0MLP, L0Conv2d, L0Dense, L0LeNet5, L0WideResNet, MAPConv2d, MAPDense
from l0fast.pruning import compact, materialize, prune_model

MODELS = {
    "mlp": (lambda **o: L0MLP(12, 3, layer_dims=(8, 6), N=50, lambas=(1, 0.5, 2), **o), (5, 12)),
    "mlp, one lamba": (lambda **o: L0MLP(12, 3, layer_dims=(8,), N=50, lambas=(0.3,), **o), (5, 12)),
    "lenet5": (
        lambda **o: L0LeNet5(4, input_size=(2, 17, 16), conv_dims=(5, 6), fc_dims=9, N=50, **o),
        (3, 2, 17, 16),
    ),
    "wide resnet": (lambda **o: L0WideResNet(depth=10, num_classes=4, widen_factor=1, N=50, **o), (3, 3, 9, 8)),
}
HIDDEN = {"mlp": (["output.0", "output.2"], [1, 2]), "lenet5": (["convs.0", "convs.3", "fcs.0"], [0, 1, 3])}
"""Layers whose outputs gates decide alone, and which gates: those of the next layer, or a convolution's own."""

EVERY = pytest.mark.parametrize("name", MODELS)


def make(name, **options):
    build, shape = MODELS[name]
    model, x = build(**options), torch.randn(shape)
    with torch.no_grad():
        for layer in model.layers:
            if hasattr(layer, "qz_loga"):
                layer.qz_loga.copy_(torch.linspace(-4, 3, len(layer.qz_loga)))
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(std=0.3)
    model(x)  # batch norms have seen something, convolutions the size of an image
    return model, x


@EVERY
@pytest.mark.parametrize("local_rep", [False, True])
def test_trains(name, local_rep):
    """The loss of one batch falls, every parameter has a gradient, and the gates obey their range."""
    torch.manual_seed(0)
    model, x = make(name, local_rep=local_rep, weight_decay=1e-4)
    model.N = 50_000  # prices that leave the labels something to say
    gates = [parameter for key, parameter in model.named_parameters() if key.endswith("qz_loga")]
    for gate in gates:
        gate.data.uniform_(2, 9)
    labels = torch.arange(len(x)) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12 if name == "wide resnet" else 30):
        loss = nn.functional.cross_entropy(model(x), labels) + model.regularization()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
        model.constrain_parameters()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    assert all(gate.exp().min() >= 0.0099 and gate.exp().max() <= 100.01 for gate in gates)


@EVERY
def test_regularization_is_that_of_the_layers_per_example(name):
    model, _ = make(name, weight_decay=0.01)
    expected = -sum(layer.regularization().item() for layer in model.layers) / 50
    if name == "wide resnet":
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        expected += 0.005 * sum(p.square().sum().item() for m in norms for p in m.parameters())
        kinds = [type(layer) for layer in model.layers]
        assert kinds.count(L0Conv2d) == 3 and kinds.count(MAPConv2d) == 1 + 3 + 2 and kinds.count(MAPDense) == 1
        assert {layer.prior_prec for layer in model.layers if isinstance(layer, L0Conv2d)} == {0.01 * 50 / 0.7}
    else:
        assert {layer.prior_prec for layer in model.layers} == {0.01 * 50}
    assert model.regularization().item() == pytest.approx(expected, rel=1e-5) and expected > 0


def test_prices_and_drop_rates_of_the_layers():
    def of(model, what):
        return [getattr(layer, what) for layer in model.layers]

    assert of(make("mlp")[0], "lamba") == [1, 0.5, 2] and of(make("mlp")[0], "droprate_init") == [0.2, 0.5, 0.5]
    assert of(make("mlp, one lamba")[0], "lamba") == [0.3, 0.3]
    assert of(L0LeNet5(10, lambas=(4, 3, 2, 1)), "lamba") == [4, 3, 2, 1]
    gated = [layer for layer in L0WideResNet(10, widen_factor=1).layers if isinstance(layer, L0Conv2d)]
    assert [(g.lamba, g.droprate_init, g.bias) for g in gated] == [(0.01, 0.3, None)] * 3


def test_counts_by_hand():
    """All gates open for certain: a plain network's numbers, counted on paper."""
    mlp = L0MLP(4, 2, layer_dims=(3,))
    net = L0LeNet5(10)
    for layer in [*mlp.layers, *net.layers]:
        layer.qz_loga.data.fill_(50)
    assert mlp.get_exp_flops_l0() == (pytest.approx(3 * (4 + 3 + 1) + 2 * (3 + 2 + 1)), pytest.approx(15 + 8))
    flops = 24 * 24 * 20 * (25 + 24 + 1) + 8 * 8 * 50 * (500 + 499 + 1) + 500 * 1600 + 10 * 1000
    assert net.get_exp_flops_l0() == (pytest.approx(flops), pytest.approx(20 * 26 + 50 * 501 + 500 * 801 + 10 * 501))
    assert net.architecture() == [20, 50, 800, 500]


def test_architecture_counts_open_test_gates():
    model, _ = make("mlp")
    threshold = torch.tensor(1 / 11).log()  # 1.2 sigmoid(a) = 0.1
    expected = [int((layer.qz_loga > threshold).sum()) for layer in model.layers]
    assert model.architecture() == expected and all(0 < n < m for n, m in zip(expected, (12, 8, 6), strict=True))


def test_names_of_the_state_dict():
    """Those of the original's models, so that its checkpoints load; the average adds none."""
    mlp, net = L0MLP(12, 3, layer_dims=(8, 6)), L0LeNet5(10)
    mlp.update_ema()
    parts = ("weights", "qz_loga", "bias")
    assert set(mlp.state_dict()) == {f"output.{k}.{part}" for k in (0, 2, 4) for part in parts}
    assert set(net.state_dict()) == {
        f"{at}.{part}" for at in ("convs.0", "convs.3", "fcs.0", "fcs.2") for part in parts
    }
    assert [tuple(p.shape) for p in mlp.layers[0].parameters()] == [(12, 8), (12,), (8,)]


@EVERY
def test_checkpoint(name):
    model, x = make(name)
    model.update_ema()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "averaged": model.averaged.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    other = MODELS[name][0]()
    other.load_state_dict(loaded["model"])
    other.averaged.load_state_dict(loaded["averaged"])
    assert other.steps_ema == 1
    assert torch.equal(other.eval()(x), model.eval()(x))


def test_average_by_hand():
    """(sum_k 0.9^(t-k) p_k) / (sum_k 0.9^(t-k)); swapping it in and out leaves training as it was."""
    model = L0MLP(3, 2, layer_dims=(2,), beta_ema=0.9)
    model.double()
    history = []
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        history.append(model.get_params())
        model.update_ema()
        shares = [0.9 ** (len(history) - 1 - k) for k in range(len(history))]
        kept = model.get_params()
        model.load_ema_params()
        for i, parameter in enumerate(model.parameters()):
            mean = sum(share * past[i] for share, past in zip(shares, history, strict=True)) / sum(shares)
            torch.testing.assert_close(parameter.detach(), mean, rtol=1e-12, atol=1e-12)
        model.load_params(kept)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), kept, strict=True))
    assert model.steps_ema == 5


def test_average_goes_along_with_copies_and_casts():
    model = L0MLP(3, 2, layer_dims=(2,))
    model.update_ema()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.steps_ema == 1
        other.update_ema()
        assert (other.steps_ema, model.steps_ema) == (2, 1)
        other.to(torch.float64)
        other.update_ema()
        other.load_ema_params()
        assert other.averaged.module.output[0].weights.dtype == torch.float64
    assert len(list(model.parameters())) == 6 and "averaged" not in dict(model.named_modules())


def test_average_errors():
    model, none = L0MLP(3, 2), L0MLP(3, 2, beta_ema=0)
    with pytest.raises(RuntimeError, match="load_ema_params: expected at least one update_ema before, got none"):
        model.load_ema_params()
    for method in ("update_ema", "load_ema_params"):
        with pytest.raises(RuntimeError, match=f"{method}: expected a model with beta_ema > 0"):
            getattr(none, method)()
    assert none.averaged is None
    before = model.get_params()
    with pytest.raises(ValueError, match="params: expected tensors of the shapes"):
        model.load_params([torch.zeros(2)] * 9)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


@EVERY
def test_compact(name):
    """Plain layers only, smaller, with the same outputs."""
    model, x = make(name)
    model.eval()
    plain = materialize(model)
    gated = (L0Dense, L0Conv2d, MAPDense, MAPConv2d)
    assert not any(isinstance(module, gated) for module in plain.modules())
    torch.testing.assert_close(plain(x), model(x))
    small, report = compact(model, example_input=x)
    assert report.parameters[1] < report.parameters[0]
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)
    if name in HIDDEN:
        places, gates = HIDDEN[name]
        widths = [small.get_submodule(place).weight.shape[0] for place in places]
        assert widths == [model.architecture()[k] for k in gates]


@EVERY
def test_prune_model(name):
    """A group goes as a whole: no weight and no gated bias is left, whatever the test-time gate says."""
    model, x = make(name)
    gated = [layer for layer in model.layers if hasattr(layer, "qz_loga")]
    biases = [None if layer.bias is None else layer.bias.detach().clone() for layer in gated]
    prune_model(model, threshold=0.9)
    for layer, bias in zip(gated, biases, strict=True):
        closed = layer.active_probability() <= 0.9
        assert closed.any() and not closed.all()
        assert torch.equal(layer.weights.flatten(1).any(1), ~closed)
        if bias is not None:
            assert torch.equal(layer.bias, bias * ~closed if isinstance(layer, L0Conv2d) else bias)
    assert torch.isfinite(model(x)).all() and not model.training


def test_materialize_shares_only_what_is_ungated():
    dense, conv = L0Dense(3, 2), L0Conv2d(2, 3, 3)
    conv.bias.data.fill_(1)
    conv.weights.requires_grad_(False)
    plain = materialize(nn.ModuleList([dense, conv]), inplace=True)
    assert type(plain[0]) is nn.Linear and type(plain[1]) is nn.Conv2d
    assert plain[0].bias is dense.bias and plain[1].bias is not conv.bias
    assert not plain[1].weight.requires_grad and plain[1].bias.requires_grad and plain[0].weight.is_contiguous()
