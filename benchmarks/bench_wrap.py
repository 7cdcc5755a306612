"""Training steps of wrapped modules: the module itself, a plain torch wrapper, L0Regularizer, compared before timing.

    python benchmarks/bench_wrap.py                          # all cases, about a million parameters each
    python benchmarks/bench_wrap.py --only mlp --decay 0.01  # with the re-weighted L2
    python benchmarks/bench_wrap.py --variance               # of the gradient: gates per example against shared ones
    python benchmarks/bench_wrap.py --quick --out /tmp/x.csv # tiny sizes: does it run

A step: gradients to None, forward with fresh noise, mean square of the output, penalty, backward. ``eager`` is written
here as one would: for every parameter a uniform draw, the gate's formula and the penalty's in torch operations, and
functional_call. ``dense`` has neither gates nor penalty. Contenders take turns, one step each a round, and each round
begins with another one; two rounds are dropped. Ratios are medians of the rounds' ratios; "gates" is the ratio of what
the two wrappers add to the dense step. ``--clock cpu`` counts the seconds that the process's threads computed instead
of those that passed, for machines that others use too.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import RESULTS, Summary, append_row, run_facts, significant
from torch import Tensor, nn
from torch.func import functional_call

from l0fast import L0Regularizer, _load

LAM = 1e-6
DROPPED = 2
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


@dataclass(frozen=True)
class Case:
    key: str
    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def cases(quick: bool) -> list[Case]:
    a, b, c, d = (16, 8, 16, 12) if quick else (784, 240, 288, 350)
    return [
        Case("mlp", f"MLP {a}-{a}-480-10, batch 64", lambda: mlp(a), (64, a)),
        Case("resnet", f"residual block, {b} channels of 8x8, batch 4", lambda: ResidualBlock(b), (4, b, 8, 8)),
        Case("transformer", f"encoder layer of {c}, 8 heads, 4 x 16 tokens", lambda: encoder(c), (4, 16, c)),
        Case("lstm", f"LSTM {d}-{d}, batch 8, 16 steps", lambda: nn.LSTM(d, d, batch_first=True), (8, 16, d)),
    ]


def mlp(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 480), nn.ReLU(), nn.Linear(480, 10))


def encoder(size: int) -> nn.Module:
    return nn.TransformerEncoderLayer(size, 8, 4 * size, dropout=0.0, batch_first=True)


class Eager(nn.Module):
    """The wrapper as one would write it."""

    def __init__(self, module: nn.Module, lam: float, decay: float):
        super().__init__()
        self.module, self.lam, self.decay = module, lam, decay
        self.beta, self.a, self.b, self.eps = 2 / 3, -0.1, 1.1, 1e-6
        self.names = [name for name, _ in module.named_parameters()]
        self.gates = nn.ParameterList([torch.full_like(p, math.log(4)) for p in module.parameters()])

    def forward(self, x):
        masked = {}
        for name, parameter, log_alpha in zip(self.names, self.module.parameters(), self.gates, strict=True):
            if self.training:
                u = torch.rand_like(log_alpha) * (1 - 2 * self.eps) + self.eps
                s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_alpha) / self.beta)
            else:
                s = torch.sigmoid(log_alpha / self.beta)
            masked[name] = parameter * nn.functional.hardtanh(s * (self.b - self.a) + self.a, 0, 1)
        return functional_call(self.module, masked, (x,))

    def regularization(self) -> Tensor:
        total = torch.zeros(())
        for parameter, log_alpha in zip(self.module.parameters(), self.gates, strict=True):
            p = torch.sigmoid(log_alpha - self.beta * math.log(-self.a / self.b))
            total = total + (p * (0.5 * self.decay * parameter.pow(2) + self.lam)).sum()
        return total


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    output = model(x)
    loss = (output[0] if isinstance(output, tuple) else output).square().mean()
    return loss if not hasattr(model, "regularization") else loss + model.regularization()


def contenders_of(case: Case, decay: float) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    dense = case.build()
    ours = L0Regularizer(dense, LAM, decay, init="constant")
    return {"dense": dense, "eager": Eager(case.build(), LAM, decay), "l0fast": ours}


def check(models: dict[str, nn.Module], x: Tensor) -> float:
    """The largest relative difference of the two wrappers' losses and gradients without noise; at most 1e-3."""
    eager, ours = models["eager"], models["l0fast"]
    eager.module.load_state_dict(ours.module.state_dict())
    found = []
    for model, gates in ((eager, list(eager.gates)), (ours, list(ours.log_alpha.parameters()))):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for p in gates:
                p.copy_(torch.randn(p.shape, generator=generator))
        loss = loss_of(model.eval(), x)
        found.append([loss, *torch.autograd.grad(loss, [*model.module.parameters(), *gates])])
        model.train()
    worst = max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in zip(*found, strict=True))
    if not worst <= 1e-3:
        raise AssertionError(f"expected the same losses and gradients, got a relative difference of {worst:.1e}")
    return worst


def measure(models: dict[str, nn.Module], x: Tensor, rounds: int, clock: Callable) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in models}
    names = list(models)
    for number in range(rounds + DROPPED):
        for k in range(len(names)):
            name = names[(number + k) % len(names)]
            began = clock()
            models[name].zero_grad(set_to_none=True)
            loss_of(models[name], x).backward()
            samples[name].append(clock() - began)
    return {name: times[DROPPED:] for name, times in samples.items()}


def bench(case: Case, options: argparse.Namespace, facts: dict) -> None:
    models = contenders_of(case, options.decay)
    x = torch.randn(case.shape)
    worst = check(models, x)
    count = sum(p.numel() for p in models["dense"].parameters())
    print(f"\n### {case.title}: {count:,} parameters, weight decay {options.decay:g}, {options.clock} time")
    print(f"\nwithout noise the wrappers differ by {worst:.1e} at most; {options.rounds} rounds\n")
    samples = measure(models, x, options.rounds, CLOCKS[options.clock])
    print("| contender | ms | p20 | p80 | / dense | eager / this | gates |\n|---|--:|--:|--:|--:|--:|--:|")
    added = {name: [a - b for a, b in zip(times, samples["dense"], strict=True)] for name, times in samples.items()}
    for name, times in samples.items():
        summary = Summary.of([1e3 * t for t in times])
        ratios = [
            statistics.median(a / b for a, b in zip(one, other, strict=True))
            for one, other in ((times, samples["dense"]), (samples["eager"], times))
        ]
        # A median each: on a busy machine single differences may be near 0.
        own = statistics.median(added[name])
        ratios.append(statistics.median(added["eager"]) / own if name != "dense" and own > 0 else None)
        cells = [significant(v) for v in (summary.median, summary.p20, summary.p80, *ratios)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        report(options, facts, case.key, name, count, f"ms {options.clock}", cells)


def report(options, facts: dict, case: str, contender: str, count: int, unit: str, cells: list[str]) -> None:
    head = {"threads": torch.get_num_threads(), "case": case, "contender": contender, "parameters": count}
    settings = {"weight_decay": options.decay, "rounds": options.rounds, "unit": unit}
    values = dict(zip(("median", "p20", "p80", "ratio_dense", "eager_ratio", "gates_ratio"), cells, strict=True))
    append_row(options.out, {**facts, **head, **settings, **values})


def variance(options: argparse.Namespace, facts: dict) -> None:
    """Over draws of the gates, of the gradient of weights and of log_alpha: parameters and the batch stay the same."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    batch = 8 if options.quick else 64
    x, y = torch.tensor(images[:batch] / 16, dtype=torch.float32), torch.tensor(digits[:batch])
    net = mlp(64)
    start = L0Regularizer(net, 0.0, droprate_init=0.5, init="constant")
    optimizer = torch.optim.Adam(start.parameters(), lr=1e-3)
    everything, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits)
    count = sum(p.numel() for p in net.parameters())
    print(f"\n### Variance of the gradient, MLP 64-64-480-10, the first {batch} of scikit-learn's digits\n")
    print(f"{options.rounds} draws each, summed over {count:,} parameters; the draws' two halves give the range\n")
    print("| steps before | gradient of | gates | variance | low | high |\n|--:|---|---|--:|--:|--:|")
    for done, further in ((0, 0), (100, 100)):
        for _ in range(further):  # with shared gates, on all digits
            optimizer.zero_grad()
            nn.functional.cross_entropy(start(everything), labels).backward()
            optimizer.step()
        for independent in (False, True):
            start.independent = independent
            for what, values in gradient_variances(start, x, y, options.rounds).items():
                name = "independent" if independent else "shared"
                cells = [significant(v) for v in (values[0], min(values[1:]), max(values[1:]))]
                print(f"| {done} | {what} | {name} | {' | '.join(cells)} |")
                case = f"variance of {what} after {done}"
                report(options, facts, case, name, count, "variance", [*cells, "", "", ""])
        start.independent = False


def gradient_variances(wrapped: L0Regularizer, x: Tensor, y: Tensor, rounds: int) -> dict[str, list[float]]:
    """Summed over the weights and over log_alpha: of all draws and of their halves."""
    parts = {"weights": list(wrapped.module.parameters()), "log_alpha": list(wrapped.log_alpha.parameters())}
    draws: dict[str, list[Tensor]] = {what: [] for what in parts}
    for _ in range(rounds):
        loss = nn.functional.cross_entropy(wrapped(x), y)
        grads = iter(torch.autograd.grad(loss, [p for ps in parts.values() for p in ps]))
        for what, ps in parts.items():
            draws[what].append(torch.cat([next(grads).reshape(-1) for _ in ps]).double())
    stacked = {what: torch.stack(values) for what, values in draws.items()}
    return {what: [half.var(0).sum().item() for half in (v, *v.chunk(2))] for what, v in stacked.items()}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="some of mlp, resnet, transformer, lstm, with commas between them")
    parser.add_argument("--decay", type=float, default=0.0, help="weight_decay of the wrappers")
    parser.add_argument("--rounds", type=int, default=None, help="of each case (default: 30)")
    parser.add_argument("--threads", type=int, help="of torch (default: as it is)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--variance", action="store_true", help="the variance of the gradient instead of time")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one thread, three rounds")
    parser.add_argument("--out", type=Path, default=RESULTS / "wrap.csv", help="CSV to append to")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 2:
        parser.error(f"--rounds: expected at least 2, got {options.rounds}")
    options.rounds = options.rounds or (4 if options.quick else 30)
    options.cases = cases(options.quick)
    keys = [case.key for case in options.cases]
    wanted = options.only.split(",") if options.only else keys
    if unknown := set(wanted) - set(keys):
        parser.error(f"--only: expected some of {', '.join(keys)}, got {', '.join(sorted(unknown))}")
    options.cases = [case for case in options.cases if case.key in wanted]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.quick or options.threads:
        torch.set_num_threads(options.threads or 1)
    facts = run_facts()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), f"threads {torch.get_num_threads()}", sep=", ")
    if (why := _load.native_error()) is not None:
        print(f"expected the compiled kernels, but {why}; {_load.BUILD_HINT}", file=sys.stderr)
        return 1
    if options.variance:
        variance(options, facts)
        return 0
    for case in options.cases:
        bench(case, options, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
