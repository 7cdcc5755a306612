"""One clear error for each bad argument, before anything is made."""

import pytest
import torch

from l0fast.neuron import L0MLP, L0Conv2d, L0Dense, L0LeNet5, L0WideResNet, MAPConv2d, MAPDense

DENSE, CONV = (lambda **o: L0Dense(3, 2, **o)), (lambda **o: L0Conv2d(4, 6, 3, **o))
SHARED = [
    ({"droprate_init": 0}, ValueError, "droprate_init: expected a probability strictly between 0 and 1, got 0"),
    ({"droprate_init": 1}, ValueError, "droprate_init: expected a probability strictly between 0 and 1, got 1"),
    ({"droprate_init": float("nan")}, ValueError, "droprate_init: .* got nan"),
    ({"droprate_init": "a"}, TypeError, "droprate_init: expected a number, got str"),
    ({"temperature": 0}, ValueError, "temperature: expected a positive number, got 0"),
    ({"lamba": -1}, ValueError, "lamba: expected a number of at least 0, got -1"),
    ({"lamba": float("inf")}, ValueError, "lamba: expected a number of at least 0, got inf"),
    ({"weight_decay": -0.5}, ValueError, "weight_decay: expected a number of at least 0, got -0.5"),
    ({"local_rep": 1}, TypeError, "local_rep: expected True or False, got 1"),
    ({"bias": None}, TypeError, "bias: expected True or False, got None"),
]
CASES = [(make, *case) for case in SHARED for make in (DENSE, CONV)] + [
    (lambda: L0Dense(0, 2), {}, ValueError, "in_features: expected at least 1, got 0"),
    (lambda: L0Dense(2, 2.5), {}, TypeError, "out_features: expected an int, got float"),
    (CONV, {"groups": 4}, ValueError, "groups: expected a divisor of out_channels = 6, got 4"),
    (CONV, {"groups": 3}, ValueError, "groups: expected a divisor of in_channels = 4, got 3"),
    (CONV, {"stride": 0}, ValueError, "stride: expected at least 1, got 0"),
    (CONV, {"padding": -1}, ValueError, "padding: expected at least 0, got -1"),
    (CONV, {"dilation": (1, 2, 3)}, ValueError, "dilation: expected 2 sizes"),
    (lambda: MAPDense(2, 2, weight_decay=-1), {}, ValueError, "weight_decay: expected a number of at least 0, got -1"),
    (lambda: MAPConv2d(2, 2, 3, weight_decay="x"), {}, TypeError, "weight_decay: expected a number, got str"),
    (lambda: L0MLP(4, 2, N=0), {}, ValueError, "N: expected at least 1, got 0"),
    (lambda: L0MLP(4, 2, beta_ema=1), {}, ValueError, r"beta_ema: expected a decay in \[0, 1\), got 1"),
    (lambda: L0MLP(4, 2, beta_ema=-0.1), {}, ValueError, "beta_ema: .* got -0.1"),
    (lambda: L0MLP(4, 2, weight_decay=-1), {}, ValueError, "weight_decay: expected a number of at least 0, got -1"),
    (lambda: L0MLP(4, 2, lambas=(1, -1, 1)), {}, ValueError, r"lambas\[1\]: expected a number of at least 0, got -1"),
    (lambda: L0MLP(4, 2, lambas=(1, 2)), {}, ValueError, "lambas: expected 3 numbers, .* or one for all, got 2"),
    (lambda: L0MLP(4, 2, layer_dims=(5, 0)), {}, ValueError, "layer_dims: expected at least 1, got 0"),
    (lambda: L0MLP(4, 2, lambas=()), {}, ValueError, "lambas: expected 3 numbers, .* got 0"),
    (lambda: L0LeNet5(10, lambas=(1, 2)), {}, ValueError, "lambas: expected 4 numbers, .* got 2"),
    (lambda: L0LeNet5(10, input_size=(1, 8, 28)), {}, ValueError, "input_size: expected at least 16 x 16 .* 8 x 28"),
    (lambda: L0LeNet5(10, conv_dims=(20,)), {}, ValueError, "conv_dims: expected 2 sizes"),
    (lambda: L0WideResNet(depth=11), {}, ValueError, r"depth: expected 6 n \+ 4 with n of at least 1, got 11"),
    (lambda: L0WideResNet(depth=4), {}, ValueError, r"depth: expected 6 n \+ 4"),
    (lambda: L0WideResNet(10, droprate_init=0), {}, ValueError, "droprate_init: expected a probability strictly"),
    (lambda: L0WideResNet(10, lamba=-1), {}, ValueError, "lamba: expected a number of at least 0, got -1"),
]


@pytest.mark.parametrize(("make", "options", "error", "message"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_bad_argument(make, options, error, message):
    state = torch.get_rng_state()
    with pytest.raises(error, match=message):
        make(**options)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_printed(capsys):
    """The original's constructors print themselves."""
    for model in (L0MLP(4, 2), L0LeNet5(3, input_size=(1, 16, 16)), L0WideResNet(10, widen_factor=1)):
        assert "L0" in repr(model)
    assert capsys.readouterr() == ("", "")
