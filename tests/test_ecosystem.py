"""Layers in the rest of torch: compile, export, autocast, copies, torch.func, parametrizations, the meta device."""

import copy
import io
import pickle
import shutil

import pytest
import torch
from gated_layers import ALL, LARGE, SEED, SMALL, fix_noise, gates_of, scatter
from torch import nn
from torch.func import functional_call

import l0fast
from l0fast import L0Conv2d, L0Linear, SparseMLP

ONE_OF_EACH = list({(c.layer, c.options.get("structured")): c for c in SMALL if 0 not in c.shape}.values()) + LARGE[:1]


class WithPenalty(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).square().sum() + 0.1 * self.inner.get_l0_penalty()


def gradients(loss, parameters):
    return torch.autograd.grad(loss, list(parameters))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_compile_in_one_graph(native, case, training):
    """The same numbers and gradients, from the same noise: the seed is drawn by the graph."""
    torch._dynamo.reset()
    model = WithPenalty(case.make()).train(training)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = case.input()
    model(x)  # what an eager forward leaves behind must not break the graph
    for _ in range(2):
        losses = []
        for m in (model, compiled):
            torch.manual_seed(1)
            losses.append(m(x))
        torch.testing.assert_close(*losses)
        for a, b in zip(*(gradients(loss, model.parameters()) for loss in losses), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class Loss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).square().sum() + 0.1 * self.model.get_l0_loss() + 0.1 * self.model.get_l2_loss()


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="no compiler"))],
)
def test_compile_a_model_with_its_penalties(native, monkeypatch, backend):
    torch._dynamo.reset()
    fix_noise(monkeypatch)
    model = Loss(scatter(SparseMLP(12, 8, 3, use_l2=True)))
    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=True)
    counter = torch._dynamo.testing.CompileCounter()
    counted = torch.compile(model, fullgraph=True, backend=counter, dynamic=True)
    for batch in (4, 7, 30):
        x = torch.randn(batch, 12)
        losses = [model(x), compiled(x)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-4)
        for a, b in zip(*(gradients(loss, model.parameters()) for loss in losses), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        counted(x)
        model.model.get_l0_loss()  # eager calls in between cause no recompilation
    assert counter.frame_count == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_autocast(monkeypatch, case, dtype):
    """Parameters and gates stay float32; the product is rounded as for a plain layer of the same masked weight."""
    fix_noise(monkeypatch)
    layer, x = case.make(), case.input()
    with torch.autocast("cpu", dtype=dtype):
        y, expected = layer(x), case.reference(layer, x, SEED)
        penalty = layer.get_l0_penalty()
    assert y.dtype == expected.dtype and penalty.dtype == torch.float32
    torch.testing.assert_close(y, expected, rtol=2 * torch.finfo(dtype).eps, atol=2 * torch.finfo(dtype).eps)
    (y.float().sum() + penalty).backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_copies_and_files_after_a_forward(case):
    layer, x = case.make(), case.input()
    (layer(x).sum() + layer.get_l0_penalty()).backward()
    layer(x)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(buffer, weights_only=False)]
    layer.eval()
    for twin in copies:
        assert (torch.equal(twin.eval()(x), layer(x)) and twin.gates._link is None) or twin.gates is not layer.gates
        before = layer.gates.qz_logits.grad.clone()
        (twin(x).sum() + twin.get_l0_penalty()).backward()
        assert torch.equal(layer.gates.qz_logits.grad, before)
        assert {p.data_ptr() for p in twin.parameters()}.isdisjoint(p.data_ptr() for p in layer.parameters())
    fresh = case.make()
    fresh.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(x), layer(x))


@pytest.mark.parametrize("case", ALL, ids=str)
def test_meta_device(case):
    layer = case.layer(*case.sizes, **case.options, device="meta")
    assert all(p.is_meta for p in layer.parameters())
    source = case.make().eval()
    layer = layer.to_empty(device="cpu").eval()
    layer.load_state_dict(source.state_dict())
    x = case.input()
    assert torch.equal(layer(x), source(x))
    assert layer.to("meta")(x.to("meta")).shape == source(x).shape
    fresh = case.layer(*case.sizes, **case.options, device="meta").to_empty(device="cpu")
    fresh.reset_parameters(), fresh.gates.reset_parameters()
    assert all(torch.isfinite(p).all() for p in fresh.parameters())


@pytest.mark.parametrize("size", [4, 520])
def test_dtype_changes_between_steps(size):
    layer = L0Linear(size, 512)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float32, torch.float16):
        layer.to(dtype)
        layer.zero_grad()
        (layer(torch.ones(2, size, dtype=dtype)).sum().float() + layer.get_l0_penalty()).backward()
        assert all(p.grad.dtype == dtype and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_torch_func(case):
    """functional_call, grad, vmap over examples and over models, jacrev and jacfwd, in evaluation."""
    layer = case.make().eval()
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    x = case.input()

    def loss(p, x):
        return functional_call(layer, p, (x,)).square().sum()

    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for got, e in zip(torch.func.grad(loss)(parameters, x).values(), expected, strict=True):
        torch.testing.assert_close(got, e, rtol=1e-4, atol=1e-4)
    several = torch.stack([x, x.flip(0)])
    torch.testing.assert_close(torch.vmap(layer)(several), torch.stack([layer(one) for one in several]))
    per_example = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, several)
    for k in range(2):
        alone = torch.func.grad(loss)(parameters, several[k])
        for name in parameters:
            torch.testing.assert_close(per_example[name][k], alone[name], rtol=1e-4, atol=1e-4)
    models = {name: torch.stack([p, p * 0.5]) for name, p in parameters.items()}
    outputs = torch.vmap(lambda p: functional_call(layer, p, (x,)))(models)
    for k in range(2):
        one = {name: p[k] for name, p in models.items()}
        torch.testing.assert_close(outputs[k], functional_call(layer, one, (x,)))


def test_vmap_in_training_says_what_it_needs():
    """Noise under vmap is torch's decision: an error unless the caller chooses; then one draw for all, or one each."""
    layer, x = L0Linear(4, 3), torch.ones(5, 4)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(layer)(x)
    same, different = (torch.vmap(layer, randomness=r)(x) for r in ("same", "different"))
    assert (same == same[0]).all() and not torch.equal(different[0], different[1])


def test_parametrizations(monkeypatch):
    fix_noise(monkeypatch)
    for layer, x in ((L0Linear(6, 5), torch.randn(2, 6)), (L0Linear(520, 512), torch.randn(2, 520))):
        nn.utils.parametrizations.weight_norm(scatter(layer))
        nn.utils.parametrize.register_parametrization(layer.weight_gates, "qz_logits", nn.Hardtanh(-1, 1))
        z = gates_of(layer, SEED)
        assert layer.weight_gates.qz_logits.abs().max() == 1
        torch.testing.assert_close(
            layer(x), nn.functional.linear(x, layer.weight * z, layer.bias), rtol=1e-4, atol=1e-4
        )
        (layer(x).sum() + layer.get_l0_penalty()).backward()
        assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_export_and_trace(case):
    layer, x = case.make().eval(), case.input()
    with torch.no_grad():
        expected = layer(x)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), expected)
    program.run_decompositions()
    traced = torch.jit.trace(layer, x)
    kinds = [node.kind() for node in traced.inlined_graph.nodes()]  # torch's own: it runs where l0fast is not
    assert all(kind.startswith(("aten::", "prim::")) and kind != "prim::PythonOp" for kind in kinds)
    torch.testing.assert_close(traced(x), expected)


@pytest.mark.parametrize("make", [lambda: L0Linear(4, 3), lambda: L0Linear(520, 512), lambda: L0Conv2d(4, 3, 1)])
def test_anomaly_mode_and_profiler(make):
    layer = make()
    x = torch.ones(2, layer.weight.shape[1], *layer.weight.shape[2:])
    with torch.autograd.detect_anomaly(check_nan=True), torch.profiler.profile():
        (layer(x).sum() + layer.get_l0_penalty()).backward()


def test_public_names():
    assert all(hasattr(l0fast, name) for name in l0fast.__all__)
