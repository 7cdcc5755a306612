"""prune_model: l0-python's on its own models, and where that fails or is silent."""

import copy

import pytest
import torch
from pruning_models import NETWORKS, network
from torch import nn
from torch.nn.utils import parametrizations

import l0fast as l0
from l0fast.layers._base import GatedLayer
from l0fast.pruning import prune_model


def build(package, structured: bool) -> nn.Module:
    return nn.Sequential(
        package.L0Conv2d(3, 6, 3, structured=structured),
        nn.ReLU(),
        nn.Sequential(package.L0Conv2d(6, 4, 2, bias=False, structured=structured), nn.Flatten()),
        package.L0Linear(4, 5, init_sparsity=0.7),
    )


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.83, 1.0])
@pytest.mark.parametrize("structured", [False, True])
def test_equals_l0_python(structured, threshold):
    theirs_package = pytest.importorskip("l0.layers")
    theirs, ours = build(theirs_package, structured), build(l0, structured)
    for name, parameter in theirs.named_parameters():
        if name.endswith("qz_logits"):
            nn.init.normal_(parameter, 0, 3)
    ours.load_state_dict(theirs.state_dict())
    assert theirs_package.prune_model(theirs, threshold) is theirs
    assert prune_model(ours, threshold) is ours
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not any(module.training for module in ours.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_zeros_exactly_the_improbable(name):
    model, _ = network(name)
    before = copy.deepcopy(model)
    prune_model(model, 0.6)
    for layer, old in zip(model.modules(), before.modules(), strict=True):
        if isinstance(layer, GatedLayer):
            closed = layer.spread(layer.gates.get_active_prob() <= 0.6).expand_as(layer.weight)
            assert (layer.weight[closed] == 0).all()
            assert torch.equal(layer.weight[~closed], old.weight[~closed])
            assert torch.equal(layer.gates.qz_logits, old.gates.qz_logits)


def test_depthwise_where_l0_python_crashes():
    layer = l0.L0DepthwiseConv2d(4, 3)
    with torch.no_grad():
        layer.channel_gates.qz_logits.copy_(torch.tensor([5.0, -9.0, 5.0, -9.0]))
    prune_model(layer)
    assert (layer.weight.flatten(1) == 0).all(1).tolist() == [False, True, False, True]
    theirs_package = pytest.importorskip("l0.layers")
    with pytest.raises(AttributeError):
        theirs_package.prune_model(theirs_package.L0DepthwiseConv2d(4, 3))


def test_shared_layers_and_data_parallel():
    layer = l0.L0Linear(3, 3)
    nn.init.normal_(layer.gates.qz_logits, 0, 4)
    model = nn.DataParallel(nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)}))
    prune_model(model)
    assert model.module["a"] is model.module["b"][0]
    assert torch.equal(layer.weight == 0, layer.gates.get_active_prob() <= 0.05)


def test_copy_leaves_the_original():
    model, _ = network("plain")
    before = copy.deepcopy(model.state_dict())
    pruned = prune_model(model, 0.5, inplace=False)
    assert model.training and not pruned.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any((p == 0).any() for p in pruned.parameters())


def test_up_to_a_half_no_output_changes():
    for eval_temperature, same in ((True, True), (False, False)):
        torch.manual_seed(0)
        layer = l0.L0Linear(200, 50, temperature=0.3, eval_temperature=eval_temperature).eval()
        nn.init.normal_(layer.gates.qz_logits, -0.7, 1)
        x = torch.randn(4, 200)
        assert torch.equal(prune_model(layer, 0.5, inplace=False)(x), layer(x)) == same


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3,), TypeError, r"model: expected a torch.nn.Module, got int"),
        ((nn.Linear(2, 2), 2), ValueError, r"threshold: expected a probability in \[0, 1\], got 2"),
        ((nn.Linear(2, 2), float("nan")), ValueError, r"threshold"),
        ((nn.Linear(2, 2), None), TypeError, r"threshold"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        prune_model(*arguments)


def test_recomputed_weights_are_refused():
    """Zeros written to a weight that a parametrization recomputes would be gone at the next access."""
    model = nn.Sequential(l0.L0Linear(3, 4), parametrizations.weight_norm(l0.L0Linear(4, 2)))
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match=r"prune_model: the weight of layer '1' is no parameter"):
        prune_model(model, 1.0)
    assert model.training and torch.equal(model[0].weight, before)
