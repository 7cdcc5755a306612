"""compact: smaller, and the same function."""

import copy

import pytest
import torch
import torch.nn.functional as F
from pruning_models import NETWORKS, assert_same, close, conv, network, shake
from torch import nn

import l0fast as l0
from l0fast.layers._base import GatedLayer
from l0fast.pruning import compact, materialize


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NETWORKS)
def test_computes_the_same_with_fewer_parameters(name, seed):
    model, draw = network(name, seed)
    small, report = compact(model, draw())
    assert not any(isinstance(m, GatedLayer) for m in small.modules()) and not small.training
    assert report.parameters == (count(materialize(model)), count(small))
    model.eval()
    for _ in range(3):  # fresh inputs, and another batch size
        x = draw()
        assert_same(small(x), model(x))
        assert_same(small(x[:1]), model(x[:1]))
    if name != "mlp" or seed == 0:
        assert report.parameters[1] < report.parameters[0]


@pytest.mark.parametrize("closed", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_all_or_nothing_closed(name, closed):
    model, draw = network(name, closed=closed)
    small, report = compact(model, draw())
    model.eval()
    x = draw()
    assert_same(small(x), model(x))
    if closed == 0:
        assert report.kept == {}
    for layer in small.modules():  # every layer keeps a channel
        assert all(p.numel() > 0 for p in layer.parameters(recurse=False))


def test_random_chains():
    """Random stacks of convolutions, norms, activations and pools: exact whatever the mixture."""
    removed = 0
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)

        def pick(*choices, generator=generator):
            return choices[torch.randint(len(choices), (1,), generator=generator).item()]

        layers, channels = [], 3
        for _ in range(pick(2, 3, 4)):
            size = pick(4, 7)
            mode = pick("zeros", "zeros", "reflect", "replicate", "circular")
            layers.append(conv(channels, size, padding=pick(0, 1, 2), padding_mode=mode, bias=pick(True, False)))
            channels = size
            layers += pick([], [nn.BatchNorm2d(size)], [nn.InstanceNorm2d(size, affine=True)], [nn.PReLU(size)])
            layers += pick([nn.ReLU()], [nn.ReLU(inplace=True)], [nn.Sigmoid()], [nn.Softplus()], [])
            layers += pick([], [nn.AvgPool2d(2, 1, padding=1)], [nn.MaxPool2d(2, 1)], [nn.ZeroPad2d(1)])
            layers += pick([], [l0.L0DepthwiseConv2d(size, 3, padding=pick(0, 1))])
        model = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), l0.L0Linear(channels, 3))
        shake(model, 0.5, seed)
        small, report = compact(model, torch.randn(2, 3, 12, 12))
        removed += report.parameters[1] < report.parameters[0]
        model.eval()
        x = torch.randn(4, 3, 14, 14)
        assert_same(small(x), model(x))
    assert removed >= 25


def test_original_is_unchanged():
    model, draw = network("residual")
    before = copy.deepcopy(model.state_dict())
    small, _ = compact(model, draw(), threshold=0.3)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for p in small.parameters()}


def test_constants_of_closed_channels_go_to_the_bias():
    """conv (closed: its bias) -> batch norm -> tanh is a constant: an unpadded conv gets a bias for it."""
    first = conv(2, 4)
    model = nn.Sequential(first, nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 3, bias=False))
    close(first, 1, 2)
    nn.init.constant_(first.bias, 0.7)
    small, report = compact(model, torch.randn(1, 2, 6, 6))
    constant = torch.tanh(torch.tensor(0.7) / (1 + 1e-5) ** 0.5)
    expected = model[3].weight[:, [1, 2]].sum((1, 2, 3)) * constant
    torch.testing.assert_close(small[3].bias, expected)
    assert report.removed == {"0": (4, 2)} and report.kept == {}
    assert small[0].out_channels == small[1].num_features == small[3].in_channels == 2


def test_zero_padding_keeps_one_carrier():
    first = conv(2, 6)
    model = nn.Sequential(first, nn.Sigmoid(), nn.Conv2d(6, 3, 3, padding=1))
    close(first, 0, 2, 3, 5)
    nn.init.normal_(first.bias)
    small, report = compact(model, torch.randn(1, 2, 6, 6))
    assert small[0].out_channels == 3  # two open ones and the carrier
    (reason,) = report.kept["0"]
    assert "carries the constants" in reason and "'2'" in reason
    carrier = max((0, 2, 3, 5), key=lambda c: first.bias[c].item())  # the largest constant: ratios stay below 1
    assert report.kept["0"][reason] == [carrier]
    x = torch.randn(2, 2, 5, 7)
    assert_same(small(x), model.eval()(x))


def test_negative_bias_behind_relu_needs_no_carrier():
    first = conv(2, 6)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    close(first, 0, 2, 3, 5)
    nn.init.constant_(first.bias, -0.3)
    small, report = compact(model, torch.randn(1, 2, 6, 6))
    assert small[0].out_channels == 2 and report.kept == {}


def test_a_dead_relu_is_no_constant():
    """Channel 0 is 0 on the example and yet open: it must stay."""
    first = conv(1, 2, 1, 0)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(2, 2, 1))
    close(first, 1)
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.copy_(torch.tensor([-100.0, 1.0]))
    small, _ = compact(model, torch.rand(1, 1, 4, 4))
    assert small[0].out_channels == 1
    x = torch.full((1, 1, 4, 4), 200.0)
    assert_same(small(x), model.eval()(x))


def test_unread_neurons_go_upstream_too():
    """Element gates: rows that are all 0, columns that nobody reads, and what then becomes unread."""
    model = nn.Sequential(l0.L0Linear(6, 8), nn.ReLU(), l0.L0Linear(8, 8), nn.ReLU(), l0.L0Linear(8, 3))
    with torch.no_grad():
        for layer in model[::2]:
            layer.gates.qz_logits.fill_(6.0)
        model[4].gates.qz_logits[:, :3] = -6.0  # nobody reads outputs 0..2 of layer 2
        model[2].gates.qz_logits[3:, 5:] = -6.0  # inputs 5..7 of layer 2 are read by these outputs only
        model[0].gates.qz_logits[0] = -6.0
    small, report = compact(model, torch.randn(2, 6))
    assert report.removed == {"0": (8, 4), "2": (8, 5)}
    x = torch.randn(5, 6)
    assert_same(small(x), model.eval()(x))


def test_rows_of_the_output_stay():
    model = nn.Sequential(l0.L0Linear(4, 6, gate_dim=0))
    close(model[0], 1, 2)
    small, report = compact(model, torch.randn(2, 4))
    assert small[0].out_features == 6
    assert report.kept == {"0": {"it reaches the model's output": [1, 2]}}


def test_indices_in_the_report_are_those_of_the_gated_layer():
    """The second pass sees fewer channels: the report still counts as the user does."""
    first, second = conv(2, 6), conv(6, 6)
    model = nn.Sequential(first, nn.Conv2d(6, 6, 1, bias=False), second, nn.Flatten(), nn.LayerNorm(6 * 16))
    close(first, 0, 1)
    close(second, 4, 5)
    _, report = compact(model, torch.randn(1, 2, 4, 4))
    (those,) = report.kept["2"].values()
    assert those == [4, 5] and "layer_norm" in next(iter(report.kept["2"]))


def test_threshold_closes_first():
    model, draw = network("plain", closed=0.0)
    with torch.no_grad():
        model.c1.gates.qz_logits[:4] = 0.5  # P(z != 0) = 0.85, gate below 1
    x = draw()
    unpruned, _ = compact(model, x)
    pruned, report = compact(model, x, threshold=0.9)
    assert unpruned.c1.out_channels == 12 and report.removed["c1"][0] == 12 and pruned.c1.out_channels < 12
    assert_same(pruned(x), l0.prune_model(model, 0.9, inplace=False)(x))


def test_shared_layers_and_wrappers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.same, self.leave = l0.L0Linear(4, 8, gate_dim=0), l0.L0Linear(8, 8, gate_dim=0), None
            self.leave = nn.ModuleDict({"out": nn.Linear(8, 2)})

        def forward(self, x):
            x = torch.relu(self.enter(x))
            return self.leave["out"](torch.relu(self.same(torch.relu(self.same(x)))))

    model = Twice()
    close(model.enter, 1, 2)
    close(model.same, 2, 3)
    nn.init.normal_(model.enter.bias)
    nn.init.normal_(model.same.bias)
    wrapped = nn.DataParallel(nn.Sequential(model))
    small, _ = compact(wrapped, torch.randn(2, 4))
    x = torch.randn(3, 4)
    assert_same(small(x), wrapped.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    model, draw = network("plain")
    model = materialize(model).to(dtype)  # an ordinary model with rows of 0 will do
    x = draw().to(dtype)
    small, report = compact(model, x)
    assert report.removed and all(p.dtype == dtype for p in small.parameters())
    assert_same(small(x), model.eval()(x), 1e-12 if dtype == torch.float64 else 0.1)


def test_requires_grad_and_training_go_on():
    model, draw = network("plain")
    model.c1.weight.requires_grad_(False)
    small, _ = compact(model, draw())
    assert not small.c1.weight.requires_grad and small.c2.weight.requires_grad
    F.mse_loss(small.train()(draw()), torch.zeros(3, 7)).backward()
    assert small.c2.weight.grad is not None and small.c1.weight.grad is None


def test_named_and_several_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = l0.L0Linear(3, 6, gate_dim=0), nn.Linear(6, 2)

        def forward(self, x, scale=1.0, *, shift):
            return self.b(torch.relu(self.a(x * scale) + 0.5)) + shift, {"scale": scale, "nothing": None}

    model = Two()
    close(model.a, 0)
    example = {"x": torch.randn(2, 3), "scale": 2.0, "shift": torch.randn(2, 2)}
    small, _ = compact(model, example)
    assert small.a.out_features == 5
    assert_same(small(**example), model.eval()(**example))
