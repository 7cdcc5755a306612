"""Which parameters are gated, how finely, and from where their gates start."""

import math

import pytest
import torch
from torch import nn
from wrap_models import ResidualBlock, Tied, scatter, transformer

from l0fast import L0Regularizer

STD = 1e-2


def gated(wrapped) -> set[str]:
    return {name for name, _ in wrapped.log_alpha.named_parameters()}


@pytest.mark.parametrize(
    "exclude, left",
    [
        ((), {"conv1.weight", "conv2.weight", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}),
        (nn.GroupNorm, {"conv1.weight", "conv2.weight"}),
        ([nn.GroupNorm, nn.BatchNorm2d, "conv1"], {"conv2.weight"}),
        ("*.bias", {"conv1.weight", "conv2.weight", "norm1.weight", "norm2.weight"}),
        ("norm?.*", {"conv1.weight", "conv2.weight"}),
        (["conv1.weight", "norm1"], {"conv2.weight", "norm2.weight", "norm2.bias"}),
        (lambda name, p: p.dim() < 2, {"conv1.weight", "conv2.weight"}),
        ({nn.Conv2d, "norm1.bias"}, {"norm1.weight", "norm2.weight", "norm2.bias"}),
    ],
    ids=repr,
)
def test_exclude(exclude, left):
    module = ResidualBlock()
    wrapped = L0Regularizer(module, 1.0, exclude=exclude, init=lambda name, weight, shape: torch.full(shape, -9.0))
    assert gated(wrapped) == left
    masked = wrapped.eval().masked_parameters()
    assert set(masked) == left and all((v == 0).all() for v in masked.values())


@pytest.mark.parametrize("exclude", ["embedding", "head.weight", "head.*", nn.Embedding], ids=str)
def test_a_tied_weight_goes_by_all_its_names(exclude):
    module = nn.ModuleDict({"tied": Tied(), "more": nn.Linear(2, 2)})
    exclude = f"tied.{exclude}" if isinstance(exclude, str) else exclude
    left = gated(L0Regularizer(module, 1.0, exclude=exclude))
    assert "tied.embedding.weight" not in left and {"more.weight", "more.bias"} <= left


SHAPES = [
    # module, parameter, granularity, shape of the gates, how they multiply the parameter
    (nn.Linear(6, 4), "weight", "element", (4, 6), lambda z: z),
    (nn.Linear(6, 4), "weight", "row", (4,), lambda z: z[:, None]),
    (nn.Linear(6, 4), "weight", "column", (6,), lambda z: z[None]),
    (nn.Linear(6, 4), "weight", "channel", (4,), lambda z: z[:, None]),
    (nn.Linear(6, 4), "bias", "row", (4,), lambda z: z),
    (nn.Linear(6, 4), "weight", ("head", 2), (2,), lambda z: z.repeat_interleave(2)[:, None]),
    (nn.Linear(6, 4), "weight", ("head", 3, 1), (3,), lambda z: z.repeat_interleave(2)[None]),
    (nn.Linear(6, 4), "bias", ("head", 2), (2,), lambda z: z.repeat_interleave(2)),
    (nn.Conv2d(3, 5, 2), "weight", "channel", (5,), lambda z: z[:, None, None, None]),
    (nn.Conv2d(3, 5, 2), "weight", 1, (3,), lambda z: z[None, :, None, None]),
    (nn.Conv2d(3, 5, 2), "weight", -1, (2,), lambda z: z[None, None, None]),
    (nn.ConvTranspose2d(3, 5, 2), "weight", "channel", (5,), lambda z: z[None, :, None, None]),
    (nn.ConvTranspose2d(3, 5, 2), "bias", "channel", (5,), lambda z: z),
    (nn.MultiheadAttention(8, 4), "in_proj_weight", "head", (4,), lambda z: z.repeat_interleave(2).repeat(3)[:, None]),
    (nn.MultiheadAttention(8, 4), "in_proj_bias", "head", (4,), lambda z: z.repeat_interleave(2).repeat(3)),
    (nn.MultiheadAttention(8, 4), "out_proj.weight", ("head", 4, 1), (4,), lambda z: z.repeat_interleave(2)[None]),
    (nn.MultiheadAttention(8, 4, kdim=3), "k_proj_weight", "head", (4,), lambda z: z.repeat_interleave(2)[:, None]),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("module, name, granularity, shape, spread", SHAPES, ids=lambda v: str(v)[:40])
def test_granularity(module, name, granularity, shape, spread, layout):
    if layout is torch.channels_last:
        if module.get_parameter(name).dim() != 4:
            pytest.skip("of no other layout")
        module = module.to(memory_format=layout)
    wrapped = scatter(L0Regularizer(module, 2.0, 0.5, granularity={name: granularity}))
    log_alpha = wrapped.log_alpha.get_parameter(name)
    assert log_alpha.shape == shape
    weight = wrapped.module.get_parameter(name)
    one = L0Regularizer(module, 2.0, 0.5, granularity={name: granularity}, exclude=lambda n, p: n != name).double()
    one.log_alpha.load_state_dict({name: log_alpha.double()}), one.module.load_state_dict(wrapped.module.state_dict())
    z = (torch.sigmoid(log_alpha.double() / wrapped.temperature) * 1.2 - 0.1).clamp(0, 1)
    expected = weight.double() * spread(z)
    torch.testing.assert_close(one.eval().masked_parameters()[name], expected, rtol=1e-6, atol=1e-8)
    p = torch.sigmoid(log_alpha.double() - 2 / 3 * math.log(0.1 / 1.1))
    truth = (spread(p).expand(weight.shape) * (0.25 * weight.double() ** 2 + 2)).sum()
    torch.testing.assert_close(one.regularization(), truth, rtol=1e-6, atol=0)
    one.regularization().backward()
    grads = torch.autograd.grad(truth, [log_alpha, weight])
    for got, grad in zip((one.log_alpha.get_parameter(name), one.module.get_parameter(name)), grads, strict=True):
        torch.testing.assert_close(got.grad.float(), grad, rtol=1e-4, atol=1e-6)
    plain = wrapped.eval().materialize()
    torch.testing.assert_close(plain.get_parameter(name).double(), expected, rtol=1e-5, atol=1e-6)


def test_a_closed_head_attends_no_more():
    layer = transformer().eval()
    granularity = {"self_attn.out_proj.weight": ("head", 2, 1)}
    init = {
        "self_attn.out_proj.weight": lambda n, w, s: torch.tensor([-9.0, 9.0]),
        "*": lambda n, w, s: torch.full(s, 9.0),
    }
    wrapped = L0Regularizer(layer, 1.0, granularity=granularity, init=init)
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        layer.self_attn.out_proj.weight[:, :4] = 0
    torch.testing.assert_close(wrapped(x), layer(x))


def test_the_first_choice_that_fits_counts():
    wrapped = L0Regularizer(ResidualBlock(), 1.0, granularity={"conv1.weight": "channel", nn.Conv2d: "element", "*": 0})
    shapes = {name: tuple(p.shape) for name, p in wrapped.log_alpha.named_parameters()}
    assert shapes["conv1.weight"] == (4,) and shapes["conv2.weight"] == (4, 4, 3, 3) and shapes["norm1.bias"] == (4,)


def test_initial_distributions():
    net = nn.Sequential(nn.Linear(50, 40, bias=False), nn.Linear(40, 50), nn.Linear(50, 30))
    inits = {"0.weight": "constant", "1.weight": ("normal", 0.5), "1.bias": ("constant", 0.9), "2.bias": "magnitude"}
    inits["2.weight"] = lambda name, weight, shape: weight.sign()
    wrapped = L0Regularizer(net, 1.0, droprate_init=0.3, init=inits)
    a = {name: p.detach() for name, p in wrapped.log_alpha.named_parameters()}
    centre = math.log(0.7 / 0.3)
    assert (a["0.weight"] == torch.tensor(centre)).all()
    assert a["1.weight"].std().item() == pytest.approx(0.5, rel=0.1) and a["1.weight"].mean().item() == pytest.approx(
        centre, abs=0.05
    )
    torch.testing.assert_close(a["1.bias"], torch.full((50,), math.log(0.1 / 0.9)))
    assert torch.equal(a["2.weight"], net[2].weight.sign())
    default = L0Regularizer(nn.Linear(100, 50), 1.0)
    assert default.log_alpha.weight.std().item() == pytest.approx(STD, rel=0.1)
    torch.manual_seed(5)
    before = wrapped.log_alpha.get_parameter("1.weight").clone()
    wrapped.reset_parameters(weights=False)  # from the same distributions
    after = wrapped.log_alpha.get_parameter("1.weight")
    assert not torch.equal(before, after) and after.std().item() == pytest.approx(0.5, rel=0.1)
    assert torch.equal(wrapped.log_alpha.get_parameter("2.weight"), wrapped.module[2].weight.sign())


def test_odds_in_proportion_to_magnitude():
    layer = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, -4.0]]))
    rows = L0Regularizer(layer, 1.0, droprate_init=0.5, granularity="row", init="magnitude").log_alpha.weight
    torch.testing.assert_close(rows.exp(), torch.tensor([0.5, 1.0, 2.0]))
    with torch.no_grad():
        layer.weight[0] = 0
    elements = L0Regularizer(layer, 1.0, init="magnitude").log_alpha.weight
    assert elements.min().item() == pytest.approx(math.log(0.01)) and elements.isfinite().all()
    with torch.no_grad():
        layer.weight.zero_()
    elements = L0Regularizer(layer, 1.0, init="magnitude").log_alpha.weight
    torch.testing.assert_close(elements, torch.full((3, 2), math.log(4)))


def test_empty_and_scalar_parameters():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.none = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.empty(0, 3))

        def forward(self, x):
            return x * self.scale + self.none.sum()

    for init in ("normal", "magnitude"):
        wrapped = L0Regularizer(Odd(), 1.0, 0.1, init=init)
        (wrapped(torch.ones(2)).sum() + wrapped.regularization()).backward()
        assert wrapped.log_alpha.scale.grad is not None and wrapped.gated_count() == 1
