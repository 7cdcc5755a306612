"""Gates of their own for each example: the same as a loop over the examples."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from wrap_models import SEED, ResidualBlock, Tied, fix_noise, gradients, mlp, scatter, transformer

from l0fast import L0Regularizer, ops


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm, self.out = nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, words):
        return {"scores": self.out(self.norm(self.words(words))).mean(1), "nothing": None}


MODULES = {
    "mlp": (mlp, lambda: torch.randn(5, 6).double()),
    "conv": (ResidualBlock, lambda: torch.randn(3, 4, 5, 5).double()),
    "conv with frozen statistics": (
        lambda: ResidualBlock(norm=lambda n: nn.BatchNorm2d(n).eval()),
        lambda: torch.randn(3, 4, 5, 5).double(),
    ),
    "conv with instance norm": (
        lambda: ResidualBlock(norm=nn.InstanceNorm2d),
        lambda: torch.randn(3, 4, 5, 5).double(),
    ),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 2, groups=1), lambda: torch.randn(3, 2, 4, 4).double()),
    "transformer": (transformer, lambda: torch.randn(3, 4, 8).double()),
    "embedding": (Embedded, lambda: torch.randint(0, 9, (4, 3))),
    "tied": (Tied, lambda: torch.randint(0, 7, (4, 3))),
}


def tensor_of(output):
    return output["scores"] if isinstance(output, dict) else output


def loop(wrapped, x):
    """One call of the module for each example, with the gates that the example draws."""
    outputs = []
    groups = wrapped._groups()
    draws = [ops.batch_gates(g.flat(), SEED, len(x), uniform_eps=wrapped.epsilon, **wrapped._shape()) for g in groups]
    for b in range(len(x)):
        masked = {}
        for group, z in zip(groups, draws, strict=True):
            masked.update(zip(group.names, group.multiplied(z[b]), strict=True))
        outputs.append(tensor_of(functional_call(wrapped.module, masked, (x[b : b + 1],))))
    return torch.cat(outputs)


@pytest.mark.parametrize("granularity", ["element", {"*weight": "row"}], ids=["element", "rows"])
@pytest.mark.parametrize("kind", MODULES)
def test_equals_a_loop_over_examples(monkeypatch, kind, granularity):
    fix_noise(monkeypatch)
    build, draw = MODULES[kind]
    wrapped = scatter(L0Regularizer(build().double(), 1.0, granularity=granularity, independent=True))
    x = draw()
    got, expected = tensor_of(wrapped(x)), loop(wrapped, x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    truth = gradients(expected.square().sum(), wrapped)
    for name, grad in gradients(got.square().sum(), wrapped).items():
        torch.testing.assert_close(grad, truth[name], rtol=1e-7, atol=1e-9, msg=name)


def test_examples_differ_in_training_alone():
    wrapped = L0Regularizer(mlp(), 1.0, droprate_init=0.5, independent=True)
    x = torch.ones(4, 6)
    y = wrapped(x)
    assert len({tuple(row) for row in y.tolist()}) == 4
    wrapped.eval()
    y = wrapped(x)
    assert torch.equal(y, wrapped(x)) and (y == y[0]).all()
    wrapped.train().independent = False
    y = wrapped(x)
    assert torch.allclose(y, y[0].expand_as(y))


def test_dropout_differs_between_examples():
    wrapped = L0Regularizer(
        nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5)),
        1.0,
        independent=True,
        init=lambda n, w, s: torch.full(s, 20.0),
    )
    closed = wrapped(torch.ones(3, 4)) == 0
    assert not torch.equal(closed[0], closed[1]) and 0.3 < closed.float().mean() < 0.7


def test_other_dimension_and_common_arguments(monkeypatch):
    fix_noise(monkeypatch)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0).double()  # examples along dimension 1
    mask = nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    x = torch.randn(4, 3, 8, dtype=torch.float64)
    wrapped = scatter(L0Regularizer(layer, 1.0, independent=True, batch_dim=1))
    got = wrapped(x, src_mask=mask)
    assert got.shape == x.shape
    first = transformer().double()
    first.load_state_dict(layer.state_dict())
    other = scatter(L0Regularizer(first, 1.0, independent=True))
    torch.testing.assert_close(got.transpose(0, 1), other(x.transpose(0, 1), src_mask=mask), rtol=1e-9, atol=1e-10)


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 2), nn.Linear(4, 2)

        def forward(self, pair, flag):
            return [self.one(pair["a"]), (self.two(pair["b"]), flag)]

    wrapped = L0Regularizer(Two(), 1.0, independent=True, init=lambda n, w, s: torch.full(s, 20.0))
    pair = {"a": torch.randn(5, 3), "b": torch.randn(5, 4)}
    (one, (two, flag)), (expected, (other, _)) = wrapped(pair, "x"), wrapped.module(pair, "x")
    torch.testing.assert_close([one, two], [expected, other])
    assert flag == "x"


@pytest.mark.parametrize(
    "module, where",
    [
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "'1' is a BatchNorm1d: its statistics"),
        (nn.BatchNorm1d(4, track_running_stats=False).eval(), "it is a BatchNorm1d"),
        (
            nn.Sequential(nn.InstanceNorm1d(4, affine=True, track_running_stats=True)),
            "'0' is a InstanceNorm1d: its running",
        ),
        (nn.ModuleDict({"rnn": nn.LSTM(4, 4)}), "'rnn' is a LSTM: torch's recurrent kernels"),
        (nn.GRU(4, 4), "it is a GRU"),
        (nn.Sequential(nn.LSTMCell(4, 4)), "'0' is a LSTMCell"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_refused_where_it_is_not_exact(module, where):
    with pytest.raises(ValueError, match=f"independent: expected .*, but {where}"):
        L0Regularizer(module, 1.0, independent=True)
    wrapped = L0Regularizer(module, 1.0)
    with pytest.raises(ValueError, match=where):
        wrapped.independent = True
    assert wrapped.independent is False


def test_refused_once_statistics_are_of_the_batch_again():
    wrapped = L0Regularizer(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4).eval()), 1.0, independent=True)
    assert wrapped(torch.ones(3, 4)).shape == (3, 4)
    wrapped.train()
    with pytest.raises(ValueError, match="'1' is a BatchNorm1d"):
        wrapped(torch.ones(3, 4))


def test_bad_batches():
    wrapped = L0Regularizer(mlp(), 1.0, independent=True)
    with pytest.raises(ValueError, match="as a positional tensor, got none"):
        wrapped(input=torch.ones(2, 6))
    bilinear = L0Regularizer(nn.Bilinear(2, 3, 4), 1.0, independent=True)
    with pytest.raises(ValueError, match=r"as many examples .* got \[2, 5\]"):
        bilinear(torch.ones(2, 2), torch.ones(5, 3))
    wrapped.batch_dim = 2
    with pytest.raises(ValueError, match=r"along dimension 2, got shape \[2, 6\]"):
        wrapped(torch.ones(2, 6))

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 1)

        def forward(self, x):
            return self.inner(x).mean()

    with pytest.raises(ValueError, match=r"outputs with the examples along dimension 0, got shape \[\]"):
        L0Regularizer(Loss(), 1.0, independent=True)(torch.ones(2, 6))


def test_the_gradient_varies_less_where_examples_agree():
    """Shared gates move all of them together. (Where they pull against each other, that cancels noise.)"""
    torch.manual_seed(0)
    net, x = mlp(), 1 + 0.1 * torch.randn(32, 6)
    y = x[:, :3].sin()
    variances = []
    for independent in (False, True):
        wrapped = L0Regularizer(net, 0.0, droprate_init=0.5, independent=independent)
        grads = []
        for _ in range(60):
            loss = (wrapped(x) - y).square().mean()
            grads.append(
                torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(wrapped.log_alpha.parameters()))])
            )
        variances.append(torch.stack(grads).var(0).sum().item())
    assert variances[1] < variances[0] / 5


def test_no_examples():
    wrapped = L0Regularizer(mlp(), 1.0, independent=True)
    assert wrapped(torch.empty(0, 6)).shape == (0, 3)
