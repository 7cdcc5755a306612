"""Each mistake gets one clear message, before anything is copied or changed."""

import math

import pytest
import torch
from torch import nn
from wrap_models import Tied, mlp

from l0fast import HardConcrete, L0Linear, L0Regularizer


class Holding(nn.Module):
    def __init__(self, **parameters):
        super().__init__()
        for name, values in parameters.items():
            self.register_parameter(name, nn.Parameter(values, requires_grad=values.dtype.is_floating_point))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"module": torch.ones(2)}, TypeError, "module: expected a torch.nn.Module, got Tensor"),
        ({"module": nn.ReLU()}, ValueError, "module: expected parameters to gate, got a ReLU without any"),
        ({"module": nn.BatchNorm1d(3, affine=False)}, ValueError, "module: expected parameters to gate"),
        ({"exclude": "*"}, ValueError, "exclude: expected to leave parameters to gate, got all 4 excluded"),
        ({"exclude": nn.Linear}, ValueError, "exclude: expected to leave parameters to gate"),
        ({"exclude": "0.wieght"}, ValueError, "exclude: expected a name or glob of .*0.weight.*; got '0.wieght'"),
        ({"exclude": 3}, TypeError, r"exclude: expected a name, a glob, .* got int \(3\)"),
        ({"exclude": [int]}, TypeError, "exclude: expected a type of module, got int"),
        ({"lam": "x"}, TypeError, "lam: expected a number, got str"),
        ({"lam": -1}, ValueError, "lam: expected a finite number of at least 0, got -1"),
        ({"weight_decay": math.nan}, ValueError, "weight_decay: expected a finite number of at least 0, got nan"),
        ({"temperature": 0}, ValueError, "temperature: expected a positive number, got 0"),
        ({"droprate_init": 0}, ValueError, "droprate_init: expected a probability strictly between 0 and 1, got 0"),
        ({"droprate_init": 1}, ValueError, "droprate_init: expected a probability strictly between 0 and 1, got 1"),
        ({"droprate_init": 1.5}, ValueError, "droprate_init: expected a probability strictly between 0 and 1, got 1.5"),
        ({"droprate_init": None}, TypeError, "droprate_init: expected a number, got NoneType"),
        ({"limit_a": 0}, ValueError, "limit_a: expected a negative number, got 0"),
        ({"limit_b": 1}, ValueError, "limit_b: expected a number above 1, got 1"),
        ({"epsilon": 0.5}, ValueError, "epsilon: expected a number from 0 to below 1/2, got 0.5"),
        ({"independent": 1}, TypeError, "independent: expected True or False, got 1"),
        ({"batch_dim": "0"}, TypeError, "batch_dim: expected an int, got '0'"),
        ({"eval_temperature": None}, TypeError, "eval_temperature: expected True or False, got None"),
        ({"granularity": "layer"}, ValueError, "granularity of 0.weight: expected 'element', .* got 'layer'"),
        ({"granularity": None}, TypeError, "granularity of 0.weight: expected 'element', .* got None"),
        (
            {"granularity": "column"},
            ValueError,
            r"granularity of 0.bias: expected a dimension of its shape \[8\], got 1",
        ),
        ({"granularity": {"0.bias": -2}}, ValueError, r"granularity of 0.bias: expected a dimension .*, got -2"),
        ({"granularity": {"1.weight": 0}}, ValueError, "granularity: expected a name or glob .*; got '1.weight'"),
        ({"granularity": {"0.weight": "head"}}, ValueError, r"granularity of 0.weight: expected \('head', heads\)"),
        ({"granularity": {"0.weight": ("head", 3)}}, ValueError, "a number of heads that divides 8, got 3"),
        ({"granularity": {"0.weight": ("head", 0)}}, ValueError, "a number of heads that divides 8, got 0"),
        ({"granularity": {"0.weight": ("head", 2.0)}}, TypeError, "granularity of 0.weight: expected"),
        ({"init": "uniform"}, ValueError, "init of 0.weight: expected 'normal', .* got 'uniform'"),
        ({"init": 3}, TypeError, "init of 0.weight: expected 'normal', .* got 3"),
        ({"init": ("normal", -1)}, ValueError, "init of 0.weight: expected a finite deviation of at least 0, got -1"),
        ({"init": ("constant", 1)}, ValueError, "init of 0.weight: expected a probability strictly between 0 and 1"),
        ({"init": lambda n, w, s: torch.ones(3)}, ValueError, r"init of 0.weight: .* shape \[8, 6\], got shape \[3\]"),
        ({"init": lambda n, w, s: None}, ValueError, "init of 0.weight: expected the function to return numbers"),
        ({"init": lambda n, w, s: math.nan}, ValueError, "init of 0.weight: expected .* finite numbers"),
        ({"init": {"0.bais": "normal"}}, ValueError, "init: expected a name or glob .*; got '0.bais'"),
    ],
    ids=lambda v: str(v)[:60] if isinstance(v, dict) else "",
)
def test_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        L0Regularizer(**{"module": mlp(), "lam": 1.0, **arguments})


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool], ids=str)
def test_parameters_that_are_no_real_floats(dtype):
    module = Holding(weight=torch.ones(3), table=torch.ones(3, dtype=dtype))
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(TypeError, match=f"table: expected float16, .* got {name}; exclude it"):
        L0Regularizer(module, 1.0)
    wrapped = L0Regularizer(module, 1.0, exclude="table")
    assert set(wrapped.masked_parameters()) == {"weight"}


def test_lazy_parameters():
    with pytest.raises(ValueError, match="weight: expected a parameter with a shape, got a lazy one"):
        L0Regularizer(nn.LazyLinear(3), 1.0)


@pytest.mark.parametrize(
    "views",
    [
        lambda w: {"one": w, "other": w},
        lambda w: {"one": w, "other": w.t()},
        lambda w: {"one": w[:3], "other": w[2:]},
        lambda w: {"one": w, "part": w[:1], "other": w[3:]},
    ],
    ids=["the same", "transposed", "overlapping", "parts"],
)
def test_memory_that_would_be_gated_twice(views):
    module = Holding(**views(torch.ones(4, 4)))
    with pytest.raises(ValueError, match=r"(one|other|part): expected memory of its own, got the memory of (one|part)"):
        L0Regularizer(module, 1.0)


def test_memory_side_by_side_is_no_sharing():
    w = torch.ones(4, 4)
    assert L0Regularizer(Holding(one=w[:2], other=w[2:]), 1.0).gated_count() == 16
    assert L0Regularizer(Tied(), 1.0).gated_count() == 42
    module = Holding(one=w, other=w, more=torch.ones(2))
    assert L0Regularizer(module, 1.0, exclude=["one", "other"]).gated_count() == 2


@pytest.mark.parametrize(
    "module, where",
    [
        (nn.Sequential(nn.Linear(2, 2), L0Linear(2, 2)), "'1' is a L0Linear"),
        (nn.Sequential(nn.Linear(2, 2), HardConcrete(2)), "'1' is a HardConcrete"),
        (L0Regularizer(nn.Linear(2, 2), 1.0), "it is a L0Regularizer"),
    ],
    ids=["layer", "gates", "wrapper"],
)
def test_gates_already(module, where):
    with pytest.raises(ValueError, match=f"module: expected one without L0 gates, got gates already: {where}"):
        L0Regularizer(module, 1.0)


def test_scripted_modules():
    with pytest.raises(TypeError, match="module: expected Python modules"):
        L0Regularizer(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), 1.0)


def test_later_changes():
    wrapped = L0Regularizer(mlp(), 1.0)
    with pytest.raises(ValueError, match="temperature: expected a positive number"):
        wrapped.temperature = -1
    with pytest.raises(ValueError, match="threshold: expected a probability"):
        wrapped.prune(2)
    with pytest.raises(TypeError, match="weights: expected True or False"):
        wrapped.reset_parameters(weights=1)
    assert wrapped.temperature == pytest.approx(2 / 3)
