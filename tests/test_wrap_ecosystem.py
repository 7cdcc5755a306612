"""The wrapper in the rest of torch: state, copies, dtypes, compile, export, ties, DistributedDataParallel."""

import copy
import io
import os
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from wrap_models import MODELS, SEED, Tied, first, fix_noise, gates_in_torch, gradients, make, mlp, scatter

from l0fast import L0Regularizer
from l0fast.wrap import base


@pytest.mark.parametrize("kind", MODELS)
def test_state_dict_round_trip(kind):
    module, x = make(kind)
    wrapped = scatter(L0Regularizer(module, 1.0))
    state = wrapped.state_dict()
    names = {name for name, _ in module.named_parameters()}
    assert {k for k in state if k.startswith("log_alpha.")} == {f"log_alpha.{name}" for name in names}
    assert {k for k in state if k.startswith("module.")} == {f"module.{k}" for k in module.state_dict()}
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    fresh = L0Regularizer(make(kind)[0], 1.0)
    assert not torch.equal(first(fresh.eval()(x)), first(wrapped.eval()(x)))
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(first(fresh(x)), first(wrapped(x)))
    wrapped.module.load_state_dict(module.state_dict())  # a plain module's state, as it is


@pytest.mark.parametrize("kind", MODELS)
def test_copies_after_a_step(kind):
    """Also of an LSTM, which remembers the tensors that it was last called with."""
    module, x = make(kind)
    wrapped = scatter(L0Regularizer(module, 1.0))
    (first(wrapped(x)).sum() + wrapped.regularization()).backward()
    wrapped(x)
    twins = [copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped)) if kind != "resnet-batchnorm" else wrapped]
    wrapped.eval()
    for twin in twins:
        assert torch.equal(first(twin.eval()(x)), first(wrapped(x)))
        if twin is not wrapped:
            assert {p.data_ptr() for p in twin.parameters()}.isdisjoint(p.data_ptr() for p in wrapped.parameters())
    plain = wrapped.materialize()
    assert type(plain) is type(module)
    torch.testing.assert_close(first(plain(x)), first(wrapped(x)), rtol=1e-12, atol=1e-12)


def test_the_module_given_stays_as_it_is():
    module, x = make("mlp")
    before, output = copy.deepcopy(module.state_dict()), module(x)
    wrapped = L0Regularizer(module, 1.0)
    wrapped(x).sum().backward()
    torch.optim.SGD(wrapped.parameters(), 0.1).step()
    assert torch.equal(module(x), output) and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_part_in_evaluation_stays_there():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).eval())
    wrapped = L0Regularizer(module, 1.0)
    assert wrapped.training and not wrapped.module[1].training


def test_dtypes_and_devices():
    wrapped = L0Regularizer(mlp(), 1.0)
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.float32):
        wrapped.to(dtype).zero_grad()
        (wrapped(torch.ones(2, 6, dtype=dtype)).float().sum() + wrapped.regularization()).backward()
        assert all(p.grad.dtype == dtype for p in wrapped.parameters())
    mixed = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    mixed[1].double()
    wrapped = L0Regularizer(mixed, 1.0)
    masked = wrapped.masked_parameters()
    assert masked["0.weight"].dtype == torch.float32 and masked["1.weight"].dtype == torch.float64
    assert wrapped.regularization().dtype == torch.float64
    wrapped.log_alpha.double()  # gates may have another dtype than what they gate
    assert wrapped.masked_parameters()["0.weight"].dtype == torch.float32
    meta = wrapped.to("meta")
    assert all(v.is_meta for v in meta.masked_parameters().values())


def test_autocast(monkeypatch):
    fix_noise(monkeypatch)
    wrapped, x = scatter(L0Regularizer(mlp(), 1.0)), torch.randn(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = wrapped(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), wrapped(x), rtol=0.05, atol=0.05)


class WithPenalty(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return first(self.inner(x)).square().sum() + self.inner.regularization()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("granularity", ["element", {"*weight": 0}], ids=["element", "mixed"])
@pytest.mark.parametrize("kind", ["mlp", "resnet", "transformer"])
def test_compile_in_one_graph(native, kind, granularity, decay):
    torch._dynamo.reset()
    module, x = make(kind)
    model = WithPenalty(scatter(L0Regularizer(module, 0.01, decay, granularity=granularity)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model(x)  # what an eager forward leaves behind must not break the graph
    for _ in range(2):
        losses = []
        for m in (model, compiled):
            torch.manual_seed(1)
            losses.append(m(x))
        torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)
        one, other = (gradients(loss, model.inner) for loss in losses)
        for name, grad in one.items():
            torch.testing.assert_close(other[name], grad, rtol=1e-8, atol=1e-10, msg=name)


def test_torch_func(monkeypatch):
    fix_noise(monkeypatch)
    wrapped, x = scatter(L0Regularizer(mlp(), 1.0)).eval(), torch.randn(4, 6)
    parameters = {name: p.detach() for name, p in wrapped.named_parameters()}

    def loss(p):
        return torch.func.functional_call(wrapped, p, (x,)).square().sum()

    for name, grad in gradients(wrapped(x).square().sum(), wrapped).items():
        torch.testing.assert_close(torch.func.grad(loss)(parameters)[name], grad, rtol=1e-4, atol=1e-5)


def test_export():
    wrapped, x = L0Regularizer(mlp(), 1.0).eval(), torch.randn(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(wrapped, (x,)).module()(x), wrapped(x))
        torch.testing.assert_close(torch.export.export(wrapped.materialize(), (x,)).module()(x), wrapped(x))


@pytest.mark.parametrize("exclude", [(), ["head.bias"]], ids=["all", "but a bias"])
def test_tied_weights_have_one_gate(monkeypatch, exclude):
    fix_noise(monkeypatch)
    module, x = Tied().double(), torch.tensor([[1, 5, 2]])
    wrapped = scatter(L0Regularizer(module, 0.1, exclude=exclude))
    assert wrapped.module.head.weight is wrapped.module.embedding.weight
    assert {n for n, _ in wrapped.log_alpha.named_parameters()} == {"embedding.weight", "head.bias"} - set(exclude)
    assert wrapped.gated_count() == 35 + (0 if exclude else 7)
    z = gates_in_torch(wrapped, SEED)
    weight = wrapped.module.embedding.weight * z["embedding.weight"]
    bias = wrapped.module.head.bias * z.get("head.bias", 1)
    torch.testing.assert_close(wrapped(x), torch.tanh(weight[x]) @ weight.T + bias)
    plain = wrapped.materialize()
    assert plain.head.weight is plain.embedding.weight
    torch.testing.assert_close(plain(x), wrapped.eval()(x))
    twin = copy.deepcopy(wrapped)
    assert twin.module.head.weight is twin.module.embedding.weight


def parametrized():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Linear(4, 3))


def test_parametrized_modules():
    wrapped = L0Regularizer(parametrized(), 1.0, exclude="*.original1", granularity={"*.original0": "row"})
    wrapped(torch.ones(2, 6)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in wrapped.log_alpha.parameters())


# -- DistributedDataParallel ------------------------------------------------------------------------------------------


def make_parallel() -> L0Regularizer:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return scatter(L0Regularizer(net, 0.01, granularity={"0.weight": "row"}))


def examples():
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def loss_of(call, wrapped, x):
    return call(x).square().mean() + wrapped.regularization()


def process(rank, file, results):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    try:
        draw, base._draw_seed = base._draw_seed, lambda device: SEED
        wrapped = make_parallel()
        parallel = nn.parallel.DistributedDataParallel(wrapped)
        x = examples()[4 * rank : 4 * rank + 4]
        for _ in range(2):  # the second time with what the first has left behind
            parallel.zero_grad()
            loss_of(parallel, wrapped, x).backward()
        torch.save([p.grad for p in wrapped.parameters()], f"{results}/grads{rank}.pt")
        base._draw_seed = draw
        optimizer = torch.optim.Adam(wrapped.parameters(), lr=0.01)
        torch.manual_seed(rank)  # noise of their own
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(parallel, wrapped, x).backward()
            optimizer.step()
        torch.save(wrapped.state_dict(), f"{results}/trained{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo")
def test_two_processes(monkeypatch, tmp_path):
    """With the same noise the gradients are those of one process; with noise of their own the models stay the same."""
    multiprocessing.spawn(process, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    fix_noise(monkeypatch)
    wrapped = make_parallel()
    loss_of(wrapped, wrapped, examples()).backward()
    for rank in range(2):
        for (name, p), grad in zip(wrapped.named_parameters(), torch.load(tmp_path / f"grads{rank}.pt"), strict=True):
            torch.testing.assert_close(grad, p.grad, rtol=1e-7, atol=1e-12, msg=name)
    one, other = (torch.load(tmp_path / f"trained{rank}.pt") for rank in range(2))
    for name, p in wrapped.named_parameters():
        assert torch.equal(one[name], other[name]) and torch.isfinite(one[name]).all()
        assert not torch.equal(one[name], p), name
