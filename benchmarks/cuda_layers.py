"""Training steps of an L0Linear, dense, l0-python (eager and compiled) and l0fast, in float32 and bf16 autocast.

The cases and contenders are those of bench_layers.py, moved to the device. A step is gradients to None, forward,
penalty and backward; the gradient of the input is part of it.
"""

from contextlib import nullcontext

import torch
from agreement import DisagreementError
from cuda_elementwise import COMPILE_SECONDS
from cuda_report import COMPILED, OURS, PEER, Report
from cuda_timing import Budget, Timer, measure
from layer_cases import PENALTY_WEIGHT, Case, linear_case
from layer_contenders import Contender, Start, installed, start_of
from torch import Tensor

from l0fast import reference

TOLERANCE = {"fp32": 1e-4, "bf16 autocast": 2e-2}
"""Of outputs and gradients against float64, in norm. bf16 keeps 8 bits: between 1e-3 and 1e-2 in a product."""


class DeviceContender(Contender):
    """A contender of bench_layers.py on a device, with or without autocast."""

    def __init__(self, name: str, case: Case, start: Start, device: torch.device, precision: str):
        super().__init__(name, case, "step", start.state, start.x, adam=False)
        self.module.to(device)
        self.parameters = list(self.module.parameters())
        self.x = start.x.to(device).requires_grad_(case.input_grad)
        self.gradients = [g.to(device) for g in self.gradients]
        plain = self.outputs

        def outputs(x: Tensor):
            lower = precision != "fp32"
            with torch.autocast(device.type, torch.bfloat16) if lower else nullcontext():
                return plain(x)

        self.outputs = outputs
        self.gradients[0] = self.gradients[0].to(torch.float32 if precision == "fp32" else torch.bfloat16)


def truth_of(contender: Contender, seed: Tensor) -> dict[str, Tensor]:
    """Output, penalty and gradients of a step in float64 on the CPU, with the gates of this seed."""
    module = contender.module
    gates = module.gates
    x, weight, log_alpha, bias = (
        t.detach().cpu().double().requires_grad_() for t in (contender.x, module.weight, gates.qz_logits, module.bias)
    )
    options = {"temperature": gates.temperature, "gamma": gates.gamma, "zeta": gates.zeta}
    v, penalty = reference.gated_weight(weight, log_alpha, seed.cpu(), **options)
    y = torch.nn.functional.linear(x, v, bias)
    grads = [contender.gradients[0].cpu().double(), torch.tensor(PENALTY_WEIGHT, dtype=torch.float64)]
    torch.autograd.backward([y, penalty], grads)
    tensors = {"output": y.detach(), "penalty": penalty.detach()}
    named = {"input": x, "weight": weight, "qz_logits": log_alpha, "bias": bias}
    return tensors | {f"gradient of {name}": t.grad for name, t in named.items()}


def check(contender: Contender, precision: str) -> float:
    """A whole step of l0fast against float64; returns the largest error in norm.

    Raises:
        DisagreementError: an error is beyond its tolerance; the message names it.
    """
    torch.manual_seed(7)
    outputs = contender.backward()
    torch.manual_seed(7)
    seed = contender.module.gates._draw_seed()  # the only draw of a step
    module = contender.module
    got = dict(zip(("output", "penalty"), (y.detach() for y in outputs), strict=True))
    named = {"input": contender.x, "weight": module.weight, "qz_logits": module.gates.qz_logits, "bias": module.bias}
    got |= {f"gradient of {name}": t.grad for name, t in named.items()}
    worst = 0.0
    for what, true in truth_of(contender, seed).items():
        error = float((got[what].detach().cpu().double() - true).norm() / true.norm())
        if not error <= TOLERANCE[precision]:
            raise DisagreementError(
                f"check failed: L0Linear {precision}: {what} is off by {error:.1e}, "
                f"allowed {TOLERANCE[precision]:.0e}; it was not timed"
            )
        worst = max(worst, error)
    return worst


def run(report: Report, timer: Timer, budget: Budget, features: int, batch: int, compiled: bool) -> None:
    case = linear_case(features, features, batch, inner=True)
    start = start_of(case)
    precisions = list(TOLERANCE)
    for number, precision in enumerate(precisions):
        names = [case.floor, OURS, *([PEER] if installed() else [])]
        contenders = {name: DeviceContender(name, case, start, timer.device, precision) for name in names}
        print(f"  {case.key} {precision}: error of a step {check(contenders[OURS], precision):.1e} in norm", flush=True)
        if installed() and compiled:
            if budget.left() < COMPILE_SECONDS:
                report.note(f"{case.key} {precision}: {COMPILED} left out, too little time to compile")
            else:
                contenders |= compiled_contender(report, case, start, timer.device, precision)
        works = {name: contender.run for name, contender in contenders.items()}
        samples = measure(timer, works, budget.left() / (len(precisions) - number))
        report.add("layers", case.key.removesuffix("-inner"), f"step {precision}", samples, note=f"batch {batch}")
        del contenders, works


def compiled_contender(report: Report, case: Case, start: Start, device: torch.device, precision: str) -> dict:
    contender = DeviceContender(COMPILED, case, start, device, precision)
    try:
        contender.run()
    except Exception as error:  # whatever the compilers may say
        words = str(error).strip().splitlines()[0]
        report.note(f"{case.key} {precision}: {COMPILED} left out, {type(error).__name__}: {words}")
        return {}
    return {COMPILED: contender}
