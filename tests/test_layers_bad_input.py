"""One clear message for each bad argument; NaN and infinity shown, never hidden; extremes that stay finite."""

import math

import pytest
import torch
from gated_layers import ALL, SMALL, scatter
from torch import nn

import l0fast
from l0fast import (
    HardConcrete,
    L0Conv1d,
    L0Conv2d,
    L0Conv3d,
    L0ConvTranspose2d,
    L0DepthwiseConv2d,
    L0Embedding,
    L0Linear,
    SparseMLP,
)

nan, inf = math.nan, math.inf
INT = torch.int32


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L0Linear(0, 3), ValueError, r"in_features: expected at least 1, got 0"),
        (lambda: L0Linear(3, -2), ValueError, r"out_features: expected at least 1, got -2"),
        (lambda: L0Linear(3.0, 2), TypeError, r"in_features: expected an int, got float"),
        (lambda: L0Linear(3, True), TypeError, r"out_features: expected an int, got bool"),
        (lambda: L0Linear(3, 2, temperature=0), ValueError, r"temperature: expected a positive number, got 0"),
        (lambda: L0Linear(3, 2, temperature=nan), ValueError, r"temperature: .*got nan"),
        (lambda: L0Linear(3, 2, temperature=True), TypeError, r"temperature: expected a number, got bool"),
        (lambda: L0Linear(3, 2, init_sparsity=1.1), ValueError, r"init_sparsity: expected a probability in \[0, 1\]"),
        (lambda: L0Linear(3, 2, init_sparsity=-0.1), ValueError, r"init_sparsity: .*got -0.1"),
        (lambda: L0Linear(3, 2, init_sparsity=nan), ValueError, r"init_sparsity: .*got nan"),
        (lambda: L0Linear(3, 2, init_sparsity="0.5"), TypeError, r"init_sparsity: expected a number, got str"),
        (lambda: L0Linear(3, 2, gate_dim=2), ValueError, r"gate_dim: expected a dimension of the weight.*got 2"),
        (lambda: L0Linear(3, 2, gate_dim=1.0), TypeError, r"gate_dim: expected None or an int, got 1.0"),
        (lambda: L0Linear(3, 2, eval_temperature=0.1), TypeError, r"eval_temperature: expected True or False, got 0.1"),
        (lambda: L0Linear(3, 2, dtype=INT), TypeError, r"dtype: expected float16.*got int32"),
        (lambda: L0Linear(3, 2, dtype=torch.complex64), TypeError, r"dtype: .*got complex64"),
        (lambda: L0Conv2d(3, 2, 3, dtype=INT), TypeError, r"dtype: .*got int32"),
        (lambda: L0DepthwiseConv2d(3, 3, dtype=INT), TypeError, r"dtype: .*got int32"),
        (lambda: L0Embedding(3, 3, dtype=INT), TypeError, r"dtype: .*got int32"),
        (lambda: L0Conv2d(3, 2, (3, 3, 3)), ValueError, r"kernel_size: expected 2 sizes, got \(3, 3, 3\)"),
        (lambda: L0Conv2d(3, 2, 0), ValueError, r"kernel_size: expected at least 1, got 0"),
        (lambda: L0Conv2d(3, 2, 2.5), TypeError, r"kernel_size: expected an int, got float"),
        (lambda: L0Conv2d(3, 2, 3, stride=0), ValueError, r"stride: expected at least 1, got 0"),
        (lambda: L0Conv2d(3, 2, 3, padding=-1), ValueError, r"padding: expected at least 0, got -1"),
        (lambda: L0Conv2d(3, 2, 3, padding=(1, 2, 3)), ValueError, r"padding: expected 2 sizes"),
        (lambda: L0Conv2d(3, 2, 3, padding="full"), ValueError, r"padding: expected sizes, 'same' or 'valid'"),
        (lambda: L0Conv2d(3, 2, 3, padding="same", stride=2), ValueError, r"padding: 'same' needs a stride of 1"),
        (lambda: L0Conv2d(3, 2, 3, padding_mode="mirror"), ValueError, r"padding_mode: expected one of zeros"),
        (lambda: L0Conv2d(3, 2, 3, dilation=(1,)), ValueError, r"dilation: expected 2 sizes, got \(1,\)"),
        (lambda: L0Conv2d(3, 2, 3, groups=2), ValueError, r"groups: expected a divisor of in_channels = 3, got 2"),
        (lambda: L0Conv2d(4, 3, 3, groups=2), ValueError, r"groups: expected a divisor of out_channels = 3, got 2"),
        (lambda: L0Conv2d(4, 3, 3, gate_dim=0), ValueError, r"gate_dim: expected structured=True with it"),
        (lambda: L0Conv1d(3, 2, (3, 3)), ValueError, r"kernel_size: expected 1 sizes"),
        (lambda: L0Conv3d(3, 2, (3, 3)), ValueError, r"kernel_size: expected 3 sizes"),
        (lambda: L0ConvTranspose2d(3, 2, 3, padding="same"), ValueError, r"padding: a transposed convolution"),
        (lambda: L0ConvTranspose2d(3, 2, 3, padding_mode="reflect"), ValueError, r"padding: a transposed convolution"),
        (lambda: L0ConvTranspose2d(3, 2, 3, output_padding=-1), ValueError, r"output_padding: expected at least 0"),
        (lambda: L0DepthwiseConv2d(0, 3), ValueError, r"in_channels: expected at least 1, got 0"),
        (lambda: L0DepthwiseConv2d(3, (3, 3, 3)), ValueError, r"kernel_size: expected 2 sizes"),
        (lambda: L0DepthwiseConv2d(3, 3, stride=0), ValueError, r"stride: expected at least 1, got 0"),
        (lambda: L0DepthwiseConv2d(3, 3, padding=-1), ValueError, r"padding: expected at least 0, got -1"),
        (lambda: L0Embedding(3, 2, padding_idx=3), ValueError, r"padding_idx: expected an index within 3 rows, got 3"),
        (lambda: L0Embedding(3, 2, padding_idx=1.0), TypeError, r"padding_idx: expected None or an int, got 1.0"),
        (lambda: L0Embedding(0, 2), ValueError, r"num_embeddings: expected at least 1, got 0"),
        (lambda: SparseMLP(4, 0, 2), ValueError, r"out_features: expected at least 1, got 0"),
        (lambda: SparseMLP(4, 3, 2, init_sparsity=2), ValueError, r"init_sparsity: .*got 2"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_gates_of_the_wrong_length(dim):
    layer = L0Linear(4, 3, gate_dim=dim)
    setattr(layer, "weight_gates" if dim is None else "channel_gates", HardConcrete(7))
    with pytest.raises(ValueError, match=r"log_alpha: expected .*got shape \[7\]"):
        layer(torch.ones(2, 4))


@pytest.mark.parametrize("case", ALL, ids=str)
def test_wrong_inputs_are_refused(case):
    """By torch's own message, and without a trace: the next call works."""
    layer = case.make()
    for bad in (
        torch.ones(2, 3, 100),
        torch.ones(1, 1, 1, 1, 1, 99),
        torch.ones(case.shape, dtype=torch.complex64),
    ):
        with pytest.raises((RuntimeError, TypeError, ValueError, IndexError)):
            layer(bad)
    layer(case.input())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", [c for c in ALL if 0 not in c.shape], ids=str)
def test_nan_shows(case, training):
    """A NaN weight is NaN in the output; a NaN gate there and in the penalty; and check_finite names both."""
    for place in ("weight", "gates"):
        layer = case.make().train(training)
        l0fast.check_finite(layer)
        parameter = layer.weight if place == "weight" else layer.gates.qz_logits
        with torch.no_grad():
            parameter.fill_(nan) if place == "weight" else parameter.view(-1)[0:1].fill_(nan)
        x = torch.arange(9).view(3, 3) if isinstance(layer, L0Embedding) else case.input()
        y = layer(x)
        assert y.isnan().any()
        assert layer.get_l0_penalty().isnan() == (place == "gates")
        name = next(name for name, p in layer.named_parameters() if p is parameter)
        with pytest.raises(ValueError, match=rf"{name}: expected finite numbers, got nan at \[0"):
            l0fast.check_finite(layer)


def test_check_finite_names_the_first():
    model = nn.Sequential(L0Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), L0Linear(12, 4))
    assert l0fast.check_finite(model) is None
    with torch.no_grad():
        model[3].weight_gates.qz_logits[2, 5] = -inf
        model[3].weight_gates.qz_logits[3, 1] = nan
    message = r"3.weight_gates.qz_logits: expected finite numbers, got -inf at \[2, 5\] \(2 of 48 are not finite\)"
    with pytest.raises(ValueError, match=message):
        l0fast.check_finite(model)
    with torch.no_grad():
        model[0].weight[1, 0, 2, 1] = nan
    with pytest.raises(ValueError, match=r"0.weight: expected finite numbers, got nan at \[1, 0, 2, 1\] \(1 of 54"):
        l0fast.check_finite(model)
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got Parameter"):
        l0fast.check_finite(model[0].weight)
    with pytest.raises(ValueError, match=r"weight: .*meta device"):
        l0fast.check_finite(L0Linear(2, 2, device="meta"))
    l0fast.check_finite(L0Linear(2, 2, dtype=torch.float16))
    scalar = nn.ParameterDict({"s": torch.tensor(inf)})
    with pytest.raises(ValueError, match=r"s: expected finite numbers, got inf at \[\] \(1 of 1"):
        l0fast.check_finite(scalar)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_extremes_stay_finite(case, dtype, training):
    """Temperature 1e-4 and logits of +-1e4: gates 0 and 1, finite outputs, penalties and gradients."""
    layer = case.make(dtype=dtype).train(training)
    layer.gates.temperature = 1e-4
    with torch.no_grad():
        layer.gates.qz_logits.view(-1)[::2] = 1e4
        layer.gates.qz_logits.view(-1)[1::2] = -1e4
    y, penalty = layer(case.input(dtype)), layer.get_l0_penalty()
    z = layer.gates()
    assert set(z.unique().tolist()) <= {0.0, 1.0}
    assert torch.isfinite(y).all() and torch.isfinite(penalty)
    (y.float().mean() if y.numel() else y.sum()).add(penalty).backward()
    for name, p in layer.named_parameters():
        assert torch.isfinite(p.grad).all(), name
    assert (layer.gates.qz_logits.grad == 0).all()


@pytest.mark.parametrize("case", SMALL[:1], ids=str)
def test_a_failed_forward_leaves_the_penalty_alone(case):
    """Its gradient does not go through a forward pass that was never finished."""
    layer = scatter(case.make())
    with pytest.raises(RuntimeError):
        layer(torch.ones(2, 99))
    layer.get_l0_penalty().backward()
    grad = layer.gates.qz_logits.grad.clone()
    other = case.make()
    other.get_l0_penalty().backward()
    torch.testing.assert_close(grad, other.gates.qz_logits.grad)
