"""DistributedDataParallel with gloo and two processes."""

import os

import pytest
import torch
import torch.distributed as dist
from gated_layers import SEED, scatter
from torch import multiprocessing, nn

from l0fast import HardConcrete, L0Conv2d, L0Linear, compute_l0_penalty

WORLD = 2


class Net(nn.Module):
    """With an own node (large), the op's (head), and a layer that forward may leave out."""

    def __init__(self, use_all: bool, penalty_inside: bool):
        super().__init__()
        self.conv, self.large = L0Conv2d(2, 4, 3), L0Linear(4 * 144, 512)
        self.head, self.extra = L0Linear(512, 3, gate_dim=1), L0Linear(3, 3)
        self.use_all, self.penalty_inside = use_all, penalty_inside

    def forward(self, x):
        y = self.head(torch.tanh(self.large(self.conv(x).flatten(1))))
        y = self.extra(y) if self.use_all else y
        return (y, self.penalty()) if self.penalty_inside else y

    def penalty(self):
        used = [self.conv, self.large, self.head, *([self.extra] if self.use_all else [])]
        return compute_l0_penalty(nn.ModuleList(used))


def make(use_all, penalty_inside):
    model = scatter(Net(use_all, penalty_inside)).double()
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(k)) / max(p.numel(), 2) ** 0.25)
    return model


def batch():
    return torch.randn(4, 2, 14, 14, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def loss_of(call, model, x):
    out = call(x)
    y, p = out if model.penalty_inside else (out, model.penalty())
    return y.square().mean() + 0.01 * p


def process(rank, file, find_unused, penalty_inside, results):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    try:
        draw, HardConcrete._draw_seed = HardConcrete._draw_seed, lambda self: SEED
        model = make(not find_unused, penalty_inside)
        parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=find_unused)
        x = batch()[2 * rank : 2 * rank + 2]
        for _ in range(2):  # the second time with a link left behind by the first
            parallel.zero_grad()
            loss_of(parallel, model, x).backward()
        torch.save([p.grad for p in model.parameters()], f"{results}/grads{rank}.pt")
        HardConcrete._draw_seed = draw
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        torch.manual_seed(rank)  # noise of their own
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(parallel, model, x).backward()
            optimizer.step()
        torch.save(model.state_dict(), f"{results}/trained{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo")
@pytest.mark.parametrize("penalty_inside", [False, True], ids=["penalty outside", "penalty inside"])
@pytest.mark.parametrize("find_unused", [False, True], ids=["all used", "find_unused"])
def test_gradients_of_two_processes(monkeypatch, tmp_path, find_unused, penalty_inside):
    """With the same noise they are those of one process on the whole batch; with noise of their own a step works."""
    arguments = (str(tmp_path / "store"), find_unused, penalty_inside, str(tmp_path))
    multiprocessing.spawn(process, arguments, nprocs=WORLD)
    monkeypatch.setattr(HardConcrete, "_draw_seed", lambda self: SEED)
    model = make(not find_unused, penalty_inside)
    loss_of(model, model, batch()).backward()
    start = make(not find_unused, penalty_inside)
    for rank in range(WORLD):
        grads = torch.load(tmp_path / f"grads{rank}.pt")
        for (name, p), grad in zip(model.named_parameters(), grads, strict=True):
            assert (p.grad is None) == (grad is None), name
            if grad is not None:
                torch.testing.assert_close(grad, p.grad, rtol=1e-7, atol=1e-12)
    one, other = (torch.load(tmp_path / f"trained{rank}.pt") for rank in range(WORLD))
    for name, p in start.named_parameters():
        assert torch.equal(one[name], other[name]) and torch.isfinite(one[name]).all()
        assert torch.equal(one[name], p) == (find_unused and name.startswith("extra")), name
