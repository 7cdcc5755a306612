"""Derivatives of derivatives: create_graph, torch.func, forward mode. l0-python has them, being plain torch."""

import pytest
import torch
from compare import away_from_kinks
from gated_layers import SEED, fix_noise, scatter
from plain_layers import KINDS, Plain, loss, parameters, weight_of
from test_hard_concrete import unclamped
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from l0fast import L0Linear, ops, reference


def smooth(shape, seed=SEED):
    """Logits in float64 with no gate near a kink, whether sampled with the seed or not."""
    a = torch.randn(shape, dtype=torch.float64)
    for _ in range(20):
        far = away_from_kinks(unclamped(a, None)) & away_from_kinks(unclamped(a, seed))
        a = a + 0.05 * ~far
    assert far.all()
    return a.requires_grad_()


@pytest.mark.parametrize("seed", [SEED, None], ids=["sampled", "deterministic"])
def test_gradgradcheck_of_the_ops(seed):
    a, b = smooth((3, 4)), smooth((5,))
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(lambda a: ops.hard_concrete(a, seed), (a,))
    assert gradgradcheck(lambda w, a: ops.gated_weight(w, a, seed), (w, a))
    assert gradgradcheck(lambda w, a: ops.gated_weight(w, a, seed, with_penalty=False)[0], (w, a))
    assert gradgradcheck(lambda a: ops.l0_penalty(a, temperature=0.3), (a,))
    assert gradgradcheck(lambda a, b: ops.l0_penalties([a, b], [0.5, 0.2], [-0.1, -0.3], [1.1, 1.2]), (a, b))


@pytest.mark.parametrize("dim", [0, 1])
def test_gradgradcheck_of_slices_and_batches(dim):
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    a = smooth((w.shape[dim],))
    assert gradgradcheck(lambda w, a: ops.gated_weight(w, a, SEED, dim), (w, a))
    a = torch.randn(4, dtype=torch.float64)
    stream = next(s for s in range(999) if away_from_kinks(unclamped(a.expand(3, 4), SEED, stream=s)).all())
    assert gradgradcheck(lambda x: ops.batch_gates(x, SEED, 3, stream=stream), (a.requires_grad_(),))


def test_frozen_inputs_of_the_ops():
    """Where one input has no gradient, the other's can still be differentiated twice."""
    a, w = smooth((3, 4)), torch.randn(3, 4, dtype=torch.float64)
    assert gradgradcheck(lambda a: ops.gated_weight(w, a, SEED), (a,))
    w.requires_grad_()
    assert gradgradcheck(lambda w: ops.gated_weight(w, a.detach(), SEED)[0], (w,))
    assert gradgradcheck(lambda a: ops.l0_penalties([a, w.detach()], [0.5] * 2, [-0.1] * 2, [1.1] * 2), (a,))


def test_third_derivatives():
    a = smooth((3,))
    results = []
    for function in (ops.l0_penalty, reference.l0_penalty):
        y = function(a)
        for _ in range(3):
            (y,) = torch.autograd.grad(y.sum(), a, create_graph=True)
        results.append(y)
    torch.testing.assert_close(*results)
    assert results[0].abs().min() > 0


def test_create_graph_gives_the_kernels_bits(native):
    """First derivatives do not change because somebody may want second ones."""
    a, w = torch.randn(300, 40).requires_grad_(), torch.randn(300, 40).requires_grad_()
    v, penalty = ops.gated_weight(w, a, SEED)
    total = v.sum() + penalty
    expected = torch.autograd.grad(total, (w, a), retain_graph=True)
    for g, e in zip(torch.autograd.grad(total, (w, a), create_graph=True), expected, strict=True):
        assert torch.equal(g, e) and g.requires_grad and not e.requires_grad


@pytest.fixture(params=KINDS)
def both(request, monkeypatch):
    fix_noise(monkeypatch)
    make, shape = KINDS[request.param]
    layer = scatter(make()).double()
    return layer, Plain(layer), torch.randn(shape, dtype=torch.float64)


def assert_all_close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8 * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradient_penalty(both, training):
    """The norm of the input's gradient as a loss, as in WGAN-GP, together with an L0 penalty."""
    layer, plain, x = both
    results = []
    for m in (layer.train(training), plain.train(training)):
        x = x.clone().requires_grad_()
        y = m(x)
        (g,) = torch.autograd.grad(loss(y.square()), x, create_graph=True)
        total = (g.norm() - 1).square() + loss(y) + m.get_l0_penalty()
        results.append(torch.autograd.grad(total, [x, *parameters(m)], allow_unused=True))
    assert_all_close(*results)


def test_twice_through_the_parameters(both):
    """Hessian-vector products over weight and gates, the penalty in them through its link."""
    layer, plain, x = both
    results = []
    for m in (layer, plain):
        inputs = [weight_of(m), m.gates.qz_logits]
        y = m(x)
        total = loss(y.square()) + m.get_l0_penalty().square()
        grads = torch.autograd.grad(total, inputs, create_graph=True)
        product = sum((g * torch.cos(g.detach())).sum() for g in grads)
        results.append([*(g.detach() for g in grads), *torch.autograd.grad(product, inputs)])
    assert_all_close(*results)


def test_penalty_alone_twice(both):
    layer, plain, x = both
    results = []
    for m in (layer, plain):
        m(x)
        (g,) = torch.autograd.grad(m.get_l0_penalty(), m.gates.qz_logits, create_graph=True)
        results.append(torch.autograd.grad(g.square().sum(), m.gates.qz_logits))
    assert_all_close(*results)


def test_backward_with_create_graph_then_plain(both):
    """Mixed passes over one graph: kept, differentiable, and at last freed."""
    layer, plain, x = both
    results = []
    for m in (layer, plain):
        inputs = parameters(m)
        total = loss(m(x)) + m.get_l0_penalty()
        one = torch.autograd.grad(total, inputs, retain_graph=True)
        two = torch.autograd.grad(total, inputs, create_graph=True)
        three = torch.autograd.grad(total, inputs, retain_graph=True)
        four = torch.autograd.grad(total, inputs)
        results.append([g.detach() for grads in (one, two, three, four) for g in grads])
    assert_all_close(*results)


def test_hessian_by_torch_func():
    a = smooth((4,)).detach()
    ours, theirs = (
        torch.func.hessian(lambda a, f=f: f.hard_concrete(a, SEED).square().sum() + f.l0_penalty(a))(a)
        for f in (ops, reference)
    )
    torch.testing.assert_close(ours, theirs)
    twice = torch.func.grad(lambda a: torch.func.grad(lambda b: ops.l0_penalty(b).square())(a).sum())(a)
    expected = torch.func.grad(lambda a: torch.func.grad(lambda b: reference.l0_penalty(b).square())(a).sum())(a)
    torch.testing.assert_close(twice, expected)


def test_forward_mode():
    """A kernel would silently drop the tangents; the reference has them."""
    a, b, w = smooth((3, 4)).detach(), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    functions = [
        lambda f, a: f.hard_concrete(a, SEED),
        lambda f, a: f.gated_weight(w, a, SEED)[0],
        lambda f, a: f.l0_penalty(a),
        lambda f, a: f.l0_penalties([a], [0.5], [-0.1], [1.1]),
        lambda f, a: f.batch_gates(a, SEED, 2),
    ]
    for function in functions:
        tangents = [
            torch.func.jvp(lambda a, f=f, function=function: function(f, a), (a,), (b,))[1] for f in (ops, reference)
        ]
        torch.testing.assert_close(*tangents)
        assert tangents[0].abs().sum() > 0
        with forward_ad.dual_level():
            got = forward_ad.unpack_dual(function(ops, forward_ad.make_dual(a, b))).tangent
        torch.testing.assert_close(got, tangents[1])
    assert gradcheck(lambda a: ops.hard_concrete(a, SEED), (smooth((3, 4)),), check_forward_ad=True)


def test_forward_mode_of_layers(both):
    layer, plain, x = both
    with forward_ad.dual_level():
        tangents = [
            forward_ad.unpack_dual(m(forward_ad.make_dual(x, torch.ones_like(x)))).tangent for m in (layer, plain)
        ]
    torch.testing.assert_close(*tangents)


def test_compiled_first_derivatives_with_the_double_backward_in_place(native):
    layer = L0Linear(6, 5)
    compiled = torch.compile(lambda x: layer(x).sum() + layer.get_l0_penalty(), fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    compiled(torch.ones(2, 6)).backward()
    assert all(p.grad is not None for p in layer.parameters())
