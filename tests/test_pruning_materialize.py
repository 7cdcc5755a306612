"""materialize: ordinary layers that compute what the gated ones compute in evaluation."""

import copy

import pytest
import torch
from pruning_models import NETWORKS, assert_same, network, shake
from torch import nn
from torch.nn.utils import parametrizations

import l0fast as l0
from l0fast.layers._base import GatedLayer
from l0fast.pruning import materialize

GEOMETRY = {"stride": 2, "padding": (1, 2), "dilation": 2, "groups": 2}
LAYERS = {
    "linear": (lambda **o: l0.L0Linear(4, 6, **o), nn.Linear, (2, 3, 4)),
    "linear rows": (lambda **o: l0.L0Linear(4, 6, gate_dim=0, **o), nn.Linear, (2, 4)),
    "linear columns": (lambda **o: l0.L0Linear(4, 6, bias=False, gate_dim=1, **o), nn.Linear, (2, 4)),
    "conv1d": (lambda **o: l0.L0Conv1d(4, 6, 3, padding="same", **o), nn.Conv1d, (2, 4, 9)),
    "conv2d": (lambda **o: l0.L0Conv2d(4, 6, (3, 2), **GEOMETRY, **o), nn.Conv2d, (2, 4, 9, 8)),
    "conv2d channels": (lambda **o: l0.L0Conv2d(4, 6, 3, structured=True, bias=False, **o), nn.Conv2d, (2, 4, 9, 8)),
    "conv2d inputs": (lambda **o: l0.L0Conv2d(4, 6, 3, structured=True, gate_dim=1, **o), nn.Conv2d, (4, 9, 8)),
    "conv2d reflect": (
        lambda **o: l0.L0Conv2d(4, 6, 3, padding=(1, 2), padding_mode="reflect", **o),
        nn.Conv2d,
        (2, 4, 9, 8),
    ),
    "conv2d circular": (
        lambda **o: l0.L0Conv2d(4, 6, (2, 3), padding="same", padding_mode="circular", dilation=(2, 1), **o),
        nn.Conv2d,
        (2, 4, 9, 8),
    ),
    "conv2d valid": (
        lambda **o: l0.L0Conv2d(4, 6, 3, padding="valid", padding_mode="replicate", **o),
        nn.Conv2d,
        (2, 4, 9, 8),
    ),
    "conv3d": (lambda **o: l0.L0Conv3d(4, 6, 2, stride=(1, 2, 1), **o), nn.Conv3d, (2, 4, 5, 6, 7)),
    "transposed": (
        lambda **o: l0.L0ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, **o),
        nn.ConvTranspose2d,
        (2, 4, 5, 6),
    ),
    "depthwise": (
        lambda **o: l0.L0DepthwiseConv2d(4, 3, padding=1, dilation=2, padding_mode="replicate", **o),
        nn.Conv2d,
        (2, 4, 9, 8),
    ),
    "depthwise, no bias": (lambda **o: l0.L0DepthwiseConv2d(4, (3, 1), 2, bias=False, **o), nn.Conv2d, (2, 4, 9, 8)),
    "embedding": (lambda **o: l0.L0Embedding(9, 4, padding_idx=-2, gate_dim=0, **o), nn.Embedding, (2, 5)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer(name, dtype):
    make, kind, shape = LAYERS[name]
    layer = shake(make(dtype=dtype))
    x = torch.randint(0, 9, shape) if kind is nn.Embedding else torch.randn(shape, dtype=dtype)
    made = materialize(layer)  # the root itself is gated
    assert type(made) is kind and not made.training and layer.training
    assert made.weight.dtype == dtype and (made.weight == 0).any()
    layer.eval()
    torch.testing.assert_close(made(x), layer(x), rtol=0, atol=0)
    again = kind(*_constructor_arguments(made), dtype=dtype)  # repr and attributes are those of an ordinary layer
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(x), made(x)) and repr(again) == repr(made)


def _constructor_arguments(layer):
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, layer.bias is not None
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim, layer.padding_idx
    first = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    if isinstance(layer, nn.ConvTranspose2d):
        return *first, layer.output_padding, layer.groups, layer.bias is not None, layer.dilation, layer.padding_mode
    return *first, layer.dilation, layer.groups, layer.bias is not None, layer.padding_mode


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    model, draw = network(name)
    before = copy.deepcopy(model.state_dict())
    made = materialize(model)
    assert not any(isinstance(m, GatedLayer | l0.HardConcrete) for m in made.modules())
    assert not any(m.training for m in made.modules()) and all(m.training for m in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for p in made.parameters()}
    x = draw()
    assert_same(made(x), model.eval()(x), 0)


def test_inplace():
    model, draw = network("residual")
    x = draw()
    expected = copy.deepcopy(model).eval()(x)
    block, bias = model.one, model.stem.bias
    assert materialize(model, inplace=True) is model and not model.training
    assert model.one is block and type(block.a) is nn.Conv2d and model.stem.bias is bias
    assert_same(model(x), expected, 0)
    assert list(dict(model.named_children())) == ["stem", "norm", "one", "two", "head"]


def test_shared_layers_stay_one():
    layer = l0.L0Linear(3, 3)
    model = nn.DataParallel(nn.ModuleDict({"a": layer, "b": nn.Sequential(layer, nn.ReLU())}))
    made = materialize(model).module
    assert made["a"] is made["b"][0] and type(made["a"]) is nn.Linear


def test_shared_bias_stays_shared_and_gated_weights_part():
    table, out = l0.L0Embedding(5, 3), nn.Linear(3, 5)
    shake(table)
    out.weight = table.weight
    one, two = l0.L0Linear(3, 3), l0.L0Linear(3, 3)
    two.bias = one.bias
    made = materialize(nn.ModuleList([table, out, one, two]))
    assert made[2].bias is made[3].bias
    assert torch.equal(made[1].weight, table.weight) and not torch.equal(made[0].weight, table.weight)


def test_requires_grad_stays():
    layer = l0.L0Linear(3, 3)
    layer.weight.requires_grad_(False)
    made = materialize(layer)
    assert not made.weight.requires_grad and made.bias.requires_grad and made.weight.is_leaf
    assert materialize(l0.L0Conv1d(2, 2, 1)).weight.requires_grad


def test_parametrized_weights_are_folded():
    layer = parametrizations.weight_norm(l0.L0Linear(3, 4))
    made = materialize(layer)
    x = torch.randn(2, 3)
    assert type(made) is nn.Linear
    torch.testing.assert_close(made(x), layer.eval()(x))


def test_subclasses_without_a_forward_of_their_own():
    class Named(l0.L0Linear):
        def masked_weight(self):
            return super().masked_weight() * 2

    layer = Named(3, 4)
    x = torch.randn(2, 3)
    torch.testing.assert_close(materialize(layer)(x), layer.eval()(x))


def test_nothing_to_do():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    made = materialize(model)
    assert made is not model and [type(m) for m in made] == [nn.Linear, nn.BatchNorm1d]
    assert materialize(model, inplace=True) is model


class OwnForward(l0.L0Linear):
    def forward(self, input):
        return super().forward(input) + 1


class Stranger(GatedLayer):
    pass


def hooked():
    layer = l0.L0Linear(2, 2)
    layer.register_forward_hook(lambda module, args, out: out + 1)
    return layer


def patched():
    layer = l0.L0Linear(2, 2)
    layer.forward = lambda x: x
    return layer


def other_inner():
    layer = l0.L0DepthwiseConv2d(2, 3)
    layer.depthwise_conv = nn.Sequential(layer.depthwise_conv)
    return layer


def hooked_inner():
    layer = l0.L0DepthwiseConv2d(2, 3)
    layer.depthwise_conv.register_forward_pre_hook(lambda module, args: None)
    return layer


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: OwnForward(2, 2), TypeError, r"layer '1.x' \(OwnForward\) has a forward of its own"),
        (patched, TypeError, r"layer '1.x' \(L0Linear\) has a forward of its own"),
        (Stranger, TypeError, r"layer '1.x' is a Stranger; expected one of L0Linear, L0Conv1d"),
        (hooked, ValueError, r"layer '1.x' \(L0Linear\) has hooks; remove them first"),
        (other_inner, TypeError, r"layer '1.x' \(L0DepthwiseConv2d\) holds a Sequential as depthwise_conv"),
        (hooked_inner, ValueError, r"layer '1.x' \(L0DepthwiseConv2d\) has hooks"),
    ],
)
def test_refusals_name_the_layer_and_change_nothing(make, error, message):
    model = nn.Sequential(l0.L0Linear(2, 2), nn.ModuleDict({"x": make()}))
    with pytest.raises(error, match=message):
        materialize(model, inplace=True)
    assert type(model[0]) is l0.L0Linear and model.training
    with pytest.raises(error, match="'the model itself'"):
        materialize(make())


def test_no_module_is_refused():
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        materialize([l0.L0Linear(2, 2)])
