"""Layers and gates against l0-python itself: arguments, keys, the same start under a seed, the same numbers."""

import inspect

import pytest
import torch
from torch import nn

import l0fast

peer = pytest.importorskip("l0", reason="l0-python is not installed: nothing to compare with")

CASES = [
    ("L0Linear", (6, 5), {}, (3, 6)),
    ("L0Linear", (6, 5), {"bias": False, "temperature": 0.3, "init_sparsity": 0.2, "use_l2": True}, (2, 4, 6)),
    ("L0Linear", (520, 512), {}, (3, 520)),
    ("L0Conv2d", (4, 6, 3), {}, (2, 4, 8, 8)),
    ("L0Conv2d", (4, 6, (3, 2), 2, 1, False, 0.4, 0.9, True, True), {}, (2, 4, 8, 8)),
    ("L0Conv2d", (4, 6, 3), {"structured": True, "padding": (1, 0), "stride": (2, 1)}, (4, 8, 8)),
    ("L0DepthwiseConv2d", (4, 3), {}, (2, 4, 8, 8)),
    ("L0DepthwiseConv2d", (4, (3, 1), 2, 1, False, 0.7, 0.1), {}, (2, 4, 8, 8)),
    ("SparseMLP", (12, 8, 3), {"use_l2": True, "temperature": 0.4}, (5, 3, 4)),
    ("HardConcrete", (7,), {"init_mean": 0.9}, None),
    ("HardConcrete", (7, 5, 0.3, 0.2, 0.4), {}, None),
]
IDS = [f"{name}{sizes}{options or ''}" for name, sizes, options, _ in CASES]
METHODS = ("get_penalty", "get_l0_penalty", "get_l2_penalty", "get_l0_loss", "get_l2_loss", "get_active_prob")


def pair(name, sizes, options):
    made = []
    for package in (peer, l0fast):
        torch.manual_seed(11)
        made.append(getattr(package, name)(*sizes, **options))
    return made


@pytest.mark.parametrize("name", ["HardConcrete", "L0Linear", "L0Conv2d", "L0DepthwiseConv2d", "SparseMLP"])
def test_arguments_and_attributes(name):
    theirs, ours = (inspect.signature(getattr(package, name).__init__).parameters for package in (peer, l0fast))
    first = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    for k, parameter in enumerate(theirs.values()):
        if name == "HardConcrete":  # its sizes are *gate_size: test_gate_arguments.py has the spellings
            if parameter.name not in ("self", "input_dim", "output_dim"):
                assert ours[parameter.name].default == parameter.default
        else:
            assert (first[k].name, first[k].default) == (parameter.name, parameter.default)
    assert name == "HardConcrete" or len(first) == len(theirs)


@pytest.mark.parametrize(("name", "sizes", "options", "shape"), CASES, ids=IDS)
def test_same_start_and_same_keys(name, sizes, options, shape):
    theirs, ours = pair(name, sizes, options)
    missing = {key for key in theirs.__dict__ if not key.startswith("_")} - set(dir(ours))
    assert not missing - {"training"}
    assert not {key for key in dir(theirs) if not key.startswith("_")} - set(dir(ours))
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert [n for n, _ in theirs.named_parameters()] == [n for n, _ in ours.named_parameters()]
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-6, atol=1e-7)
        if "qz_logits" not in key:
            assert torch.equal(ours.state_dict()[key], value)


def randomise(module):
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()


@pytest.mark.parametrize(("name", "sizes", "options", "shape"), CASES, ids=IDS)
def test_same_numbers_in_eval(name, sizes, options, shape):
    theirs, ours = pair(name, sizes, options)
    randomise(theirs)
    assert str(ours.load_state_dict(theirs.state_dict(), strict=True)) == "<All keys matched successfully>"
    theirs.eval(), ours.eval()
    x = () if shape is None else (torch.randn(shape),)
    outputs = [module(*x) for module in (theirs, ours)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-4)
    losses = [y.square().mean() for y in outputs]
    for method in METHODS:
        if hasattr(theirs, method):
            expected, got = getattr(theirs, method)(), getattr(ours, method)()
            assert got.shape == expected.shape and got.dtype == expected.dtype and got.device == expected.device
            torch.testing.assert_close(got, expected)
            losses = [loss + value.sum() * 0.1 for loss, value in zip(losses, (expected, got), strict=True)]
    for (key, one), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        grads = [torch.autograd.grad(v, p, retain_graph=True)[0] for v, p in zip(losses, (one, other), strict=True)]
        torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4, msg=lambda m, k=key: f"{k}: {m}")
    for method in ("get_sparsity", "get_num_active"):
        if hasattr(theirs, method):
            assert getattr(ours, method)() == pytest.approx(getattr(theirs, method)(), abs=1e-6)
            assert type(getattr(ours, method)()) is type(getattr(theirs, method)())
    back, _ = pair(name, sizes, options)
    back.load_state_dict(ours.state_dict(), strict=True)
    if shape is not None:
        torch.testing.assert_close(back.eval()(*x), outputs[0])


def test_sparse_mlp_statistics():
    theirs, ours = pair("SparseMLP", (12, 8, 3), {})
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    expected, got = theirs.get_sparsity_stats(), ours.get_sparsity_stats()
    assert list(got) == list(expected)
    for name in expected:
        assert got[name] == pytest.approx(expected[name], rel=1e-5)


def test_prune_model():
    models = []
    for package in (peer, l0fast):
        torch.manual_seed(2)
        model = nn.Sequential(package.L0Conv2d(3, 4, 3), package.L0Conv2d(4, 4, 3, structured=True), nn.Flatten())
        model.append(package.L0Linear(16, 3))
        for name, p in model.named_parameters():
            if "qz" in name:
                nn.init.normal_(p, std=3)
        models.append(package.prune_model(model, 0.3))
    for a, b in zip(*(model.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(a, b)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(models[1](x), models[0](x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_masked_weights_have_the_same_law(training):
    """The noise differs; over many draws the mean of the outputs does not: within five standard errors."""
    theirs, ours = pair("L0Linear", (4, 3), {"init_sparsity": 0.3})
    theirs.train(training), ours.train(training)
    x, draws = torch.ones(4), 4000 if training else 1
    with torch.no_grad():
        a, b = (torch.stack([layer(x) for _ in range(draws)]).double() for layer in (theirs, ours))
    error = ((a.var(0) + b.var(0)) / draws).sqrt() if training else torch.tensor(1e-6)
    assert ((a.mean(0) - b.mean(0)).abs() < 5 * error + 1e-6).all()
