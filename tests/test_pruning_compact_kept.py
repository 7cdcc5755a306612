"""compact: what it must leave alone, and what it refuses."""

import re

import pytest
import torch
import torch.nn.functional as F
from pruning_models import assert_same, close, network
from torch import nn

import l0fast as l0
from l0fast.pruning import compact


class Case(nn.Module):
    """A gated layer with closed outputs 1 and 2, something in between, and a reader."""

    def __init__(self, reader=8):
        super().__init__()
        self.gated = l0.L0Conv2d(3, 8, 1, structured=True)
        self.reader = nn.Conv2d(reader, 4, 1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.norm = nn.GroupNorm(2, 8)
        close(self.gated, 1, 2)
        nn.init.normal_(self.gated.bias)

    def forward(self, x):
        return self.reader(self.between(self.gated(x)))


class Direct(Case):
    between = staticmethod(lambda y: y)


class Softmax(Case):
    between = staticmethod(lambda y: y.softmax(1))


class MeanGate(Case):
    between = staticmethod(lambda y: y * y.mean(1, keepdim=True))


class Norm(Case):
    def between(self, y):
        return self.norm(y)


class Scale(Case):
    def between(self, y):
        return y * self.scale


class AddsInput(Case):
    def forward(self, x):
        return self.reader(self.gated(x) + F.pad(x, (0, 0, 0, 0, 0, 5)))


class Chunk(Case):
    def __init__(self):
        super().__init__(reader=4)

    def between(self, y):
        a, b = y.chunk(2, dim=1)
        return a * b.sigmoid()


class Shuffle(Case):
    def between(self, y):
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Flip(Case):
    def between(self, y):
        return y[:, torch.arange(7, -1, -1)]


class Spelled(Case):
    """The size is written in the code: the forward fails without the channels."""

    def between(self, y):
        return y.reshape(-1, 8, y.shape[2], y.shape[3])


class CountsChannels(Case):
    """No operation shows that the number of channels is read: only the comparison does."""

    def between(self, y):
        return y / y.shape[1] ** 0.5


class WritesPart(Case):
    def between(self, y):
        out = torch.zeros_like(y)
        out[:, 4:] = y[:, 4:]
        out[:, :4] = y[:, :4]
        return out


class WritesUnderView(Case):
    def between(self, y):
        flat = y.flatten(1)
        flat += torch.arange(flat.shape[1])
        return y


class Branches(Case):
    def between(self, y):
        return y if y[:, 1].mean() > -100 else -y


class Sorted(Case):
    between = staticmethod(lambda y: y.sort(1).values)


class Grouped(Direct):
    def __init__(self):
        super().__init__()
        self.reader = nn.Conv2d(8, 4, 1, groups=2)


class OwnUse(Case):
    """The layer's weight read elsewhere."""

    def forward(self, x):
        return self.reader(self.gated(x)) + self.reader.weight.sum()


class Returned(Case):
    def forward(self, x):
        y = self.gated(x)
        return self.reader(y), [y.relu()]


class Subclass(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * x.shape[1]


class OwnReader(Direct):
    def __init__(self):
        super().__init__()
        self.reader = Subclass(8, 4, 1)


class Hooked(Direct):
    def __init__(self):
        super().__init__()
        self.reader.register_forward_pre_hook(lambda module, args: (args[0].flip(1),))


class OutsideTorch(Case):
    """Through numpy: nothing can be followed."""

    def between(self, y):
        return torch.from_numpy(y.detach().numpy()[:, ::-1].copy())


KEPT = {
    Softmax: "aten._softmax reads it",
    MeanGate: "aten.mean reads it",
    Norm: "aten.native_group_norm reads it",
    Scale: "aten.mul combines it with what is no layer's channel",
    AddsInput: "aten.add combines it with what is no layer's channel",
    Chunk: "aten.split reads it",
    Shuffle: "aten.view reads it",
    Flip: "aten.index reads it",
    Spelled: "forward fails or computes something else: RuntimeError: shape",
    CountsChannels: "forward fails or computes something else: an output differs",
    WritesPart: "aten.(slice|copy_) reads",
    WritesUnderView: "aten.add_ (reads or )?writes",
    Branches: "aten.select reads it",
    Sorted: "aten.sort reads it",
    Grouped: "'reader' is a grouped convolution",
    OwnUse: "a parameter of 'reader' is used outside of it",
    Returned: "it reaches the model's output",
    OwnReader: "aten.convolution reads it",
    Hooked: "aten.flip|aten.convolution reads it",
    OutsideTorch: "forward fails or computes something else",
}


@pytest.mark.parametrize(("case", "reason"), KEPT.items(), ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_what_is_not_understood_stays(case, reason):
    torch.manual_seed(1)
    model = case()
    small, report = compact(model, torch.randn(2, 3, 4, 4))
    assert small.gated.out_channels == 8, report
    reasons = report.kept["gated"]
    assert sorted(i for those in reasons.values() for i in those) == [1, 2]
    assert all(re.search(reason, text) for text in reasons), reasons
    x = torch.randn(3, 3, 4, 4)
    assert_same(small(x), model.eval()(x))
    assert "closed kept" in str(report)


def test_only_the_failing_part_is_taken_back():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad, self.good = Spelled(), l0.L0Linear(4, 8, gate_dim=0)
            self.last = nn.Linear(8, 2)

        def forward(self, x):
            return self.last(self.good(self.bad(x).mean((2, 3))))

    model = Mixed()
    close(model.good, 0, 5)
    _, report = compact(model, torch.randn(2, 3, 4, 4))
    assert report.removed == {"good": (8, 6)} and list(report.kept) == ["bad.gated"]


def test_tied_weights_stay():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.gated = l0.L0Linear(4, 6, gate_dim=0)
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(self.gated(x)))

    model = Tied()
    close(model.gated, 3)
    small, report = compact(model, torch.randn(2, 4))
    assert report.kept == {"gated": {"'one' and 'two' share a parameter": [3]}}
    assert small.one.weight is small.two.weight


def test_layers_that_did_not_run_are_named():
    class Aux(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.aux = l0.L0Linear(3, 4, gate_dim=0), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            y = self.a(x)
            return (self.b(y), self.aux(y)) if self.training else self.b(y)

    model = Aux()
    close(model.a, 0)
    small, report = compact(model, torch.randn(2, 3))
    assert report.not_run == ["aux"] and small.aux.in_features == 4 and "aux: not run" in str(report)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None,), TypeError, r"example_input: expected a tensor, a tuple .*got NoneType"),
        ((3,), TypeError, r"example_input: .*got int"),
        (((),), TypeError, r"example_input: expected at least one tensor"),
        ((torch.randn(0, 3, 16, 16),), ValueError, r"example_input: expected no empty tensor"),
        ((torch.randn(2, 4, 16, 16),), ValueError, r"example_input: the model does not run on it: .*channels"),
        (({"y": torch.randn(2, 3, 16, 16)},), ValueError, r"example_input: the model does not run on it: .*'y'"),
        (
            (torch.full((2, 3, 16, 16), torch.nan),),
            ValueError,
            r"example_input: the model's output on it is not finite",
        ),
        ((torch.randn(2, 3, 16, 16), 2), ValueError, r"threshold: expected a probability in \[0, 1\], got 2"),
        ((torch.randn(2, 3, 16, 16), "x"), TypeError, r"threshold"),
    ],
)
def test_bad_arguments(arguments, error, message):
    model, _ = network("plain")
    with pytest.raises(error, match=message):
        compact(model, *arguments)
    assert model.training


def test_other_refusals():
    model, draw = network("plain")
    with pytest.raises(TypeError, match="example_input"):
        compact(model)
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got int"):
        compact(3, draw())
    with pytest.raises(ValueError, match=r"tolerance: expected a positive number, got 0"):
        compact(model, draw(), tolerance=0)


def test_outputs_of_other_kinds_are_refused():
    class Result:
        def __init__(self, value):
            self.value = value

    class Odd(nn.Linear):
        def forward(self, x):
            return Result(super().forward(x))

    with pytest.raises(TypeError, match=r"model: expected outputs of tensors in tuples, lists and dicts, got Result"):
        compact(Odd(3, 2), torch.randn(1, 3))


def test_random_models_are_refused():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.rand(())

    with pytest.raises(RuntimeError, match="outputs differ between two runs"):
        compact(Noisy(3, 2), torch.randn(1, 3))
