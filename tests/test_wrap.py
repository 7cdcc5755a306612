"""L0Regularizer against the plain module and against the same in plain torch."""

import copy
import math

import pytest
import torch
from torch import nn
from wrap_models import (
    MODELS,
    SEED,
    first,
    fix_noise,
    gradients,
    make,
    mlp,
    output_in_torch,
    penalty_in_torch,
    scatter,
)

import l0fast
from l0fast import L0Regularizer, ops, reference


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", MODELS)
def test_open_gates_change_nothing(kind, training):
    module, x = make(kind)
    module.train(training)
    wrapped = L0Regularizer(copy.deepcopy(module), 1.0, init=lambda name, weight, shape: torch.full(shape, 30.0))
    assert wrapped.training == training
    outputs, expected = wrapped(x), module(x)
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    first(outputs).square().sum().backward()
    first(expected).square().sum().backward()
    for name, p in module.named_parameters():
        torch.testing.assert_close(wrapped.module.get_parameter(name).grad, p.grad, rtol=1e-9, atol=1e-12)
    for one, other in zip(wrapped.module.buffers(), module.buffers(), strict=True):
        torch.testing.assert_close(one, other)  # the running statistics are kept as ever


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", MODELS)
def test_against_the_reference(monkeypatch, kind, training, decay):
    """Outputs, penalty and the gradients of both together."""
    fix_noise(monkeypatch)
    module, x = make(kind)
    wrapped = scatter(L0Regularizer(module, 0.01, decay)).train(training)
    output, penalty = first(wrapped(x)), wrapped.regularization()
    expected = output_in_torch(wrapped, x, SEED if training else None)
    truth = penalty_in_torch(wrapped, 0.01, decay)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(penalty, truth, rtol=1e-10, atol=0)
    got = gradients(output.square().sum() + penalty, wrapped)
    for name, grad in gradients(expected.square().sum() + truth, wrapped).items():
        torch.testing.assert_close(got[name], grad, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_float32_and_16_bits(monkeypatch, decay):
    fix_noise(monkeypatch)
    module = mlp().double()
    wrapped = scatter(L0Regularizer(module, 0.01, decay))
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = output_in_torch(wrapped, x, SEED)
    truth = penalty_in_torch(wrapped, 0.01, decay)
    grads = gradients(expected.square().sum() + truth, wrapped)
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
        narrow = copy.deepcopy(wrapped).to(dtype)
        output, penalty = narrow(x.to(dtype)), narrow.regularization()
        assert output.dtype == dtype and penalty.dtype == torch.float32
        torch.testing.assert_close(output.double(), expected, rtol=error, atol=error)
        torch.testing.assert_close(penalty.double(), truth, rtol=error, atol=error)
        for name, grad in gradients(output.float().square().sum() + penalty, narrow).items():
            torch.testing.assert_close(
                grad.double(), grads[name], rtol=4 * error, atol=2 * error * grads[name].abs().max()
            )


def test_one_launch_for_all_gates(monkeypatch, native):
    """However many parameters there are: one draw, one backward; two where granularities are mixed."""
    for modules in (2, 12):
        for granularity, launches in (("element", 1), ({"*.bias": "element", "*": "row"}, 2)):
            net = nn.Sequential(*[nn.Linear(3, 3) for _ in range(modules)])
            wrapped = L0Regularizer(net, 1.0, granularity=granularity)
            with torch.profiler.profile() as profile:
                loss = wrapped(torch.ones(1, 3)).sum() + wrapped.regularization()
                loss.backward()
            calls = [event.name for event in profile.events() if event.name.startswith("l0fast::")]
            draws = [name for name in calls if name in ("l0fast::gated_weight", "l0fast::hard_concrete")]
            assert len(draws) == launches, calls
            assert len(calls) <= 4 * launches + 2, calls


def test_noise_is_fresh_and_of_torchs_generator():
    wrapped, x = L0Regularizer(mlp(), 1.0, droprate_init=0.5), torch.randn(4, 6)
    torch.manual_seed(1)
    one, other = wrapped(x), wrapped(x)
    torch.manual_seed(1)
    assert torch.equal(wrapped(x), one) and not torch.equal(one, other)
    wrapped.eval()
    assert torch.equal(wrapped(x), wrapped(x))


def test_arguments_and_outputs_pass_through():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x, *more, scale, **others):
            return {"sum": (x * self.weight * scale).sum(), "more": more, "others": others}

    out = L0Regularizer(Module(), 1.0).eval()(torch.ones(2), "a", None, scale=3, flag=True)
    assert (
        out["sum"].item() == pytest.approx(6, rel=0.2)
        and out["more"] == ("a", None)
        and out["others"] == {"flag": True}
    )


def test_counts():
    """count_l0: expected weights that are not 0; count_l2: squares of what evaluation computes with."""
    module, _ = make("mlp")
    wrapped = scatter(L0Regularizer(module, 0.5, granularity={"0.weight": "row", "2.weight": "column"}))
    p = {n: reference.active_probability(a) for n, a in wrapped.log_alpha.named_parameters()}
    sizes = {"0.weight": 6, "0.bias": 1, "2.weight": 3, "2.bias": 1}
    expected = sum(p[name].sum() * size for name, size in sizes.items())
    torch.testing.assert_close(wrapped.count_l0(), expected)
    torch.testing.assert_close(wrapped.regularization(), 0.5 * expected)
    torch.testing.assert_close(wrapped.get_l0_penalty(), sum(values.sum() for values in p.values()))
    plain = wrapped.materialize()
    torch.testing.assert_close(wrapped.count_l2(), sum(w.square().sum() for w in plain.parameters()))
    assert wrapped.count_l0().dim() == wrapped.count_l2().dim() == 0 and not wrapped.count_l0().requires_grad
    assert wrapped.gated_count() == 48 + 8 + 24 + 3
    assert wrapped.get_sparsity() == pytest.approx(1 - expected.item() / 83)


def test_count_l0_is_what_sampling_shows():
    torch.manual_seed(0)
    wrapped = scatter(L0Regularizer(nn.Linear(40, 50, bias=False), 1.0))
    drawn = [wrapped.masked_parameters()["weight"].count_nonzero().item() for _ in range(40)]
    assert sum(drawn) / 40 == pytest.approx(wrapped.count_l0().item(), rel=0.01)


def test_evaluation_has_exact_zeros_and_ones():
    wrapped = L0Regularizer(nn.Linear(2, 1, bias=False), 1.0, init=lambda n, w, s: torch.tensor([[-3.0, 3.0]])).eval()
    z = wrapped.masked_parameters()["weight"] / wrapped.module.weight
    assert z[0, 0] == 0 and z[0, 1] == 1
    wrapped = L0Regularizer(nn.Linear(2, 1, bias=False), 1.0, init="constant", eval_temperature=False).eval()
    z = wrapped.masked_parameters()["weight"] / wrapped.module.weight
    torch.testing.assert_close(
        z, torch.full((1, 2), 0.8 * 1.2 - 0.1)
    )  # the original authors': sigmoid(log_alpha) = 0.8


def test_constrain_and_reset():
    wrapped = L0Regularizer(nn.Sequential(nn.Linear(30, 40), nn.LayerNorm(40)), 1.0)
    with torch.no_grad():
        for p in wrapped.parameters():
            p.fill_(9.0)
    wrapped.constrain_parameters()
    assert all((p == torch.tensor(math.log(100))).all() for p in wrapped.log_alpha.parameters())
    wrapped.reset_parameters(weights=False)
    assert (wrapped.module[0].weight == 9).all()
    start = wrapped.log_alpha.get_parameter("0.weight")
    assert start.mean().item() == pytest.approx(math.log(4), abs=2e-3) and start.std().item() == pytest.approx(
        0.01, rel=0.1
    )
    wrapped.reset_parameters()
    assert wrapped.module[0].weight.abs().max() < 1 and (wrapped.module[1].weight == 1).all()


def test_epsilon_and_limits_reach_the_gates(monkeypatch):
    fix_noise(monkeypatch)
    wrapped = scatter(L0Regularizer(nn.Linear(50, 40), 1.0, 0, 0.3, 0.2, -0.4, 1.3, 1e-2))
    flat = torch.cat([wrapped.log_alpha.weight.reshape(-1), wrapped.log_alpha.bias])
    options = {"temperature": 0.3, "gamma": -0.4, "zeta": 1.3}
    z = reference.hard_concrete(flat, SEED, uniform_eps=1e-2, **options)
    weight = wrapped.module.weight * z[:2000].view(40, 50)
    torch.testing.assert_close(wrapped.masked_parameters()["weight"], weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(wrapped.get_l0_penalty(), ops.l0_penalty(flat, **options), rtol=1e-5, atol=0)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_second_derivatives(monkeypatch, decay):
    fix_noise(monkeypatch)
    module, x = make("mlp")
    wrapped = scatter(L0Regularizer(module, 0.1, decay))
    parameters = [*wrapped.module.parameters(), *wrapped.log_alpha.parameters()]

    def curvature(output, penalty):
        grads = torch.autograd.grad(output.square().sum() + penalty, parameters, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), parameters)

    got = curvature(wrapped(x), wrapped.regularization())
    expected = curvature(output_in_torch(wrapped, x, SEED), penalty_in_torch(wrapped, 0.1, decay))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_penalties_of_models_find_the_gates():
    wrapped = scatter(L0Regularizer(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), 0.1, granularity={"0.weight": 0}))
    model = nn.Sequential(wrapped, l0fast.L0Linear(3, 2))
    total = l0fast.compute_l0_penalty(model)
    torch.testing.assert_close(total, wrapped.get_l0_penalty() + model[1].get_l0_penalty())
    total.backward()
    assert all(p.grad.abs().sum() > 0 for p in wrapped.log_alpha.parameters())
    weights = [wrapped.module[0].weight, wrapped.module[1].weight, model[1].weight]
    torch.testing.assert_close(l0fast.compute_l2_penalty(model), sum(w.square().sum() for w in weights))
    stats = l0fast.get_sparsity_stats(model)
    assert stats["0"]["total_params"] == 20 + 4 + 12 + 3
    assert stats["0"]["sparsity"] == wrapped.get_sparsity()
    assert l0fast.get_active_parameter_count(model) == int(wrapped.get_l0_penalty()) + int(model[1].get_l0_penalty())
    l0fast.update_temperatures(model, 0.25)
    assert wrapped.temperature == 0.25


def test_prune_and_materialize():
    module, x = make("transformer")
    wrapped = scatter(L0Regularizer(module, 1.0, exclude=nn.LayerNorm)).eval()
    expected = wrapped(x)
    model = nn.Sequential(wrapped, l0fast.L0Linear(8, 2).double())
    plain = l0fast.pruning.materialize(model)
    assert type(plain[0]) is nn.TransformerEncoderLayer and not plain.training
    assert torch.equal(plain[0](x), expected) and type(l0fast.pruning.materialize(wrapped)) is type(module)
    assert (plain[0].linear1.weight == 0).any() and isinstance(model[0], L0Regularizer)
    l0fast.prune_model(model, 0.5)
    torch.testing.assert_close(wrapped(x), expected)
    share = (wrapped.module.linear1.weight == 0).double().mean().item()
    p = reference.active_probability(wrapped.log_alpha.linear1.weight)
    assert share == (p <= 0.5).double().mean().item() > 0.05


def test_materialize_refuses_what_it_would_lose():
    wrapped = L0Regularizer(mlp(), 1.0)
    wrapped.register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(ValueError, match=r"the model itself.*hooks"):
        l0fast.pruning.materialize(wrapped)

    class Own(L0Regularizer):
        def forward(self, x):
            return super().forward(x) + 1

    with pytest.raises(TypeError, match="forward of its own"):
        l0fast.pruning.materialize(Own(mlp(), 1.0))
