"""Gate ops on a square matrix of gates: checked against l0fast/reference in float64 on the CPU, then timed.

The timed tensors themselves are checked, in three slices: the reference draws the noise of a slice by the index of its
first element. l0-python is compared by what does not depend on its draws, and by the mean of its gates.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from agreement import DisagreementError
from common import ROOT, l0fast
from cuda_bytes import elementwise_bytes
from cuda_report import COMPILED, OURS, PEER, Report
from cuda_timing import Budget, Timer, measure
from layer_cases import PENALTY_WEIGHT, WeightAndGates, library
from layer_contenders import installed
from torch import Tensor

from l0fast import ops, reference

sys.path.append(str(ROOT / "tests"))
from compare import assert_as_good_as_torch, away_from_kinks

OPTIONS = {"temperature": 0.5}
"""What l0-python's HardConcrete has by default; gamma and zeta are the ops' own."""

SLICE = 1 << 16
COMPILE_SECONDS = 20
"""Nothing is compiled with less than this left: a compiler cannot be stopped."""


@dataclass
class Operands:
    """The tensors that all contenders work on, and the gradients of the outputs."""

    module: WeightAndGates
    seed: Tensor
    grad: Tensor
    grad_penalty: Tensor

    @classmethod
    def make(cls, side: int, device: torch.device) -> "Operands":
        gates = library(PEER if installed() else OURS).HardConcrete(side, side)
        module = WeightAndGates(gates.to(device)).to(device)
        with torch.no_grad():
            module.gates.qz_logits.normal_(0, 2)
            module.weight.normal_()
        seed = torch.empty(1, dtype=torch.int64, device=device).random_()
        penalty = torch.tensor(PENALTY_WEIGHT, device=device)
        return cls(module, seed, torch.randn(side, side, device=device), penalty)

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def log_alpha(self) -> Tensor:
        return self.module.gates.qz_logits

    def fresh(self) -> Tensor:
        """A new seed, as a layer draws one at each forward pass."""
        return torch.randint(0, 2**63 - 1, (1,), device=self.seed.device)


@dataclass(frozen=True)
class Case:
    """An op as l0fast has it (of a seed), as l0-python has it, and as the reference has it (of a slice)."""

    op: str
    ours: Callable
    peer: Callable
    inputs: Callable[[Operands], list[Tensor]]
    grads: Callable[[Operands], list[Tensor]]


CASES = [
    Case(
        "hard_concrete",
        lambda f, x, seed, **place: (f.hard_concrete(x[0], seed, **place, **OPTIONS),),
        lambda m: (m.gates(),),
        lambda x: [x.log_alpha],
        lambda x: [x.grad],
    ),
    Case(
        "l0_penalty",
        lambda f, x, seed, **place: (f.l0_penalty(x[0], **OPTIONS),),
        lambda m: (m.gates.get_penalty(),),
        lambda x: [x.log_alpha],
        lambda x: [x.grad_penalty],
    ),
    Case(
        "gated_weight",
        lambda f, x, seed, **place: f.gated_weight(x[1], x[0], seed, **place, **OPTIONS),
        lambda m: (m.weight * m.gates(), m.gates.get_penalty()),
        lambda x: [x.log_alpha, x.weight],
        lambda x: [x.grad, x.grad_penalty],
    ),
]


# -- checks -----------------------------------------------------------------------------------------------------------


def results_of(function, case: Case, inputs: list[Tensor], seed: Tensor, grads: list[Tensor], **place):
    """Outputs and gradients of the inputs, detached."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    outputs = case.ours(function, inputs, seed, **place)
    return [y.detach() for y in outputs], list(torch.autograd.grad(outputs, inputs, grads))


def check_ours(case: Case, operands: Operands) -> None:
    """Outputs and gradients at full size against the reference on the CPU.

    Raises:
        DisagreementError: an error is larger than tests/compare.py allows; the message names op and result.
    """
    seed = operands.seed.clone()
    inputs, grads = case.inputs(operands), case.grads(operands)
    outputs, gradients = results_of(ops, case, inputs, seed, grads)
    count = inputs[0].numel()
    size = min(SLICE, count)
    places = sorted({0, max(0, min(count // 2 + 1, count - size)), count - size})  # the middle one starts unaligned
    for begin in places:
        part = slice(begin, begin + size)

        def cut(tensors, part=part):
            return [t.detach().flatten()[part].cpu() if t.numel() == count else t.detach().cpu() for t in tensors]

        theirs = [
            results_of(reference, case, cast(cut(inputs), d), seed.cpu(), cast(cut(grads), d), first_index=begin)
            for d in (torch.float32, torch.float64)
        ]
        keep = away_from_kinks(stretched(cut(inputs)[0].double(), seed.cpu(), begin))
        found = (cut(outputs), *(outputs for outputs, _ in theirs))
        for got, plain, true in zip(*found, strict=True):
            if got.dim() == 1:  # a penalty is of all elements: below
                judge(f"{case.op}: output from element {begin}", got, plain, true)
        found = (cut(gradients), *(gradients for _, gradients in theirs))
        for name, *three in zip(("log_alpha", "weight"), *found, strict=False):
            judge(f"{case.op}: gradient of {name} from element {begin}", *(t[keep] for t in three))
    if case.op != "hard_concrete":
        logits = inputs[0].detach().cpu()
        plain, true = (reference.l0_penalty(logits.to(d), **OPTIONS) for d in (torch.float32, torch.float64))
        judge(f"{case.op}: penalty", outputs[-1].cpu(), plain, true)


def cast(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [t.to(dtype) for t in tensors]


def stretched(log_alpha: Tensor, seed: Tensor, begin: int) -> Tensor:
    """The gate before its clamp: without stretch the reference gives the sigmoid itself."""
    s = reference.hard_concrete(log_alpha, seed, first_index=begin, gamma=0.0, zeta=1.0, **OPTIONS)
    return s * (l0fast.constants.ZETA - l0fast.constants.GAMMA) + l0fast.constants.GAMMA


def judge(what: str, got: Tensor, plain: Tensor, true: Tensor) -> None:
    try:
        assert_as_good_as_torch(got, plain, true, what)
    except AssertionError as error:
        raise DisagreementError(f"check failed: {error or what}; it was not timed") from None


def check_peer(case: Case, operands: Operands) -> None:
    """Deterministic outputs to 1e-4, and the mean of sampled ones to ten standard errors."""
    module = operands.module
    inputs = case.inputs(operands)
    with torch.no_grad():
        module.eval()
        pairs = list(zip(case.ours(ops, inputs, None), case.peer(module), strict=True))
        module.train()
        drawn = case.ours(ops, inputs, operands.seed)[0].mean() - case.peer(module)[0].mean()
    for ours, theirs in pairs:
        difference = float((ours - theirs).abs().max() / theirs.abs().max())
        if not difference <= 1e-4:
            raise DisagreementError(f"check failed: {case.op}: l0-python differs by {difference:.1e}; it was not timed")
    if case.op != "l0_penalty" and not abs(float(drawn)) <= 10 / math.sqrt(inputs[0].numel()):
        raise DisagreementError(f"check failed: {case.op}: mean of l0-python's draws differs by {float(drawn):.1e}")


# -- times ------------------------------------------------------------------------------------------------------------


def works_of(outputs: Callable, case: Case, operands: Operands) -> dict[str, Callable]:
    """What is timed in each mode."""
    inputs, grads = case.inputs(operands), case.grads(operands)

    def forward():
        with torch.no_grad():
            return outputs()

    def step():
        return torch.autograd.grad(outputs(), inputs, grads)

    kept = []

    def backward():
        if not kept:
            kept.append(outputs())
        return torch.autograd.grad(kept[0], inputs, grads, retain_graph=True)

    return {"forward": forward, "backward": backward, "step": step}


def run(report: Report, timer: Timer, budget: Budget, side: int, compiled: bool) -> None:
    """Checks and times every case; a compiled contender only while there is time to compile."""
    operands = Operands.make(side, timer.device)
    gates = side * side
    for number, case in enumerate(CASES):
        check_ours(case, operands)
        inputs = case.inputs(operands)
        contenders = {OURS: lambda c=case, x=inputs: c.ours(ops, x, operands.fresh())}
        if installed():
            check_peer(case, operands)
            contenders[PEER] = lambda c=case: c.peer(operands.module)
        all_works = {name: works_of(outputs, case, operands) for name, outputs in contenders.items()}
        if installed() and compiled:
            all_works |= compiled_works(report, case, operands, budget)
        modes = ("forward", "backward", "step")
        for k, mode in enumerate(modes):
            works = {name: w[mode] for name, w in all_works.items() if mode in w}
            works |= {"copy": lambda: operands.module.room.copy_(operands.grad)}
            rest = (len(CASES) - number) * len(modes) - k
            samples = measure(timer, works, budget.left() / rest)

            def moved(name: str, key=(case.op, mode)) -> int:
                return elementwise_bytes(*(("copy", "forward") if name == "copy" else key), gates)

            report.add("elementwise", case.op, mode, samples, moved)


def compiled_works(report: Report, case: Case, operands: Operands, budget: Budget) -> dict[str, dict[str, Callable]]:
    """l0-python under torch.compile; without a backward pass of its own, whose buffers belong to the step."""
    if budget.left() < COMPILE_SECONDS:
        report.note(f"{case.op}: {COMPILED} left out, {budget.left():.0f} s left are too few to compile")
        return {}
    torch.compiler.reset()
    function = torch.compile(lambda: case.peer(operands.module), dynamic=False)
    works = works_of(function, case, operands)
    del works["backward"]
    try:
        for work in works.values():
            work()
    except Exception as error:  # whatever the compilers may say
        report.note(f"{case.op}: {COMPILED} left out, {type(error).__name__}: {str(error).strip().splitlines()[0]}")
        return {}
    return {COMPILED: works}
