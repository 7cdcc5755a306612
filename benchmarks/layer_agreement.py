"""All contenders must compute the same layer before they are timed.

Deterministic gates: outputs and penalty are compared number by number, and so are the gradients of the penalty alone,
which depend on no noise. Sampled gates are drawn from generators of their own, so what is compared is statistics over
a few draws of the very step that is timed: mean and root mean square of outputs and gradients, and the mean gate,
within the error that so many draws leave.
"""

import math
import statistics

import torch
from agreement import DisagreementError
from layer_cases import COMPILED, Case
from layer_contenders import Contender
from torch import Tensor

TOLERANCE = 1e-4
"""Of deterministic numbers, relative to the largest of the tensor, or to the root mean square of it for a mean. Wide
enough for float32 sums of millions in another order."""

STANDARD_ERRORS = 10.0
"""How far the means of draws may be from each other. Far, as so few draws tell their own spread badly; a wrong
temperature of the gates of a 1024x1024 layer is some hundreds away."""


def check(case: Case, mode: str, contenders: list[Contender]) -> str:
    """Compares all gated contenders with the first of them; returns what was found, in words.

    Raises:
        DisagreementError: outputs, penalty, gradients or their statistics are not the same.
    """
    gated = [contender for contender in contenders if contender.gated]
    if len(gated) < 2:
        return "nothing to compare with"
    worst = check_deterministic(case, [c for c in gated if c.name != COMPILED or mode == "eval"])
    if mode == "step":
        worst = max(worst, check_penalty_gradients(case, gated))
    report = f"deterministic outputs agree to {worst:.0e}"
    if mode != "eval":
        draws = 4 if sum(p.numel() for p in gated[0].parameters) > 1_000_000 else 12
        furthest = check_draws(case, gated, contenders[0], draws)
        report += f", statistics of {draws} draws to {furthest:.1f} standard errors"
    return report


def check_deterministic(case: Case, gated: list[Contender]) -> float:
    """Largest relative difference of outputs, and of the penalty where it is one of them, with gates of evaluation."""
    found = []
    for contender in gated:
        training = contender.module.training
        contender.module.eval()
        with torch.no_grad():
            found.append(contender.outputs(contender.x))
        contender.module.train(training)
    worst = 0.0
    for contender, outputs in zip(gated[1:], found[1:], strict=True):
        for what, ours, theirs in zip(("output", "penalty"), outputs, found[0], strict=False):
            worst = max(worst, compare(case, contender, what, ours, theirs))
    return worst


def check_penalty_gradients(case: Case, gated: list[Contender]) -> float:
    """The same of all gradients where that of the output is zero. Beside a noisy gradient the penalty's would be lost,
    and a contender that leaves it out saves a pass."""
    found = []
    for contender in gated:
        y, *weight = contender.gradients
        if not weight:
            return 0.0
        contender.backward([torch.zeros_like(y), *weight])
        found.append({name: p.grad for name, p in contender.module.named_parameters()})
    worst = 0.0
    for contender, gradients in zip(gated[1:], found[1:], strict=True):
        for name, theirs in found[0].items():
            what = f"penalty's gradient of {name}"
            # No gradient is a gradient of zero, but not where the other has one.
            ours, other = (
                torch.zeros_like(contender.module.get_parameter(name)) if g is None else g
                for g in (gradients[name], theirs)
            )
            worst = max(worst, compare(case, contender, what, ours.detach(), other.detach()))
    return worst


def compare(case: Case, contender: Contender, what: str, ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest number, after a check that it is within the tolerance."""
    same_kind(case, contender, what, ours, theirs)
    error = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=torch.finfo(theirs.dtype).tiny))
    if not error <= TOLERANCE:
        refuse(case, contender, f"error of the {what} is {error:.2e}, allowed {TOLERANCE:.0e}")
    return error


def check_draws(case: Case, gated: list[Contender], floor: Contender, draws: int) -> float:
    """How far the statistics of any contender are from those of the first, in standard errors."""
    direction = dense_gradient(floor)
    found = [[one_draw(contender, direction) for _ in range(draws)] for contender in gated]
    furthest = 0.0
    first = found[0]
    for contender, samples in zip(gated[1:], found[1:], strict=True):
        if samples[0].keys() != first[0].keys():
            refuse(case, contender, f"has {sorted(samples[0])}, {gated[0].name} has {sorted(first[0])}")
        for what, (kind, *_) in samples[0].items():
            if kind != first[0][what][0]:
                refuse(case, contender, f"{what} is {kind}, that of {gated[0].name} is {first[0][what][0]}")
            for part, statistic in ((1, "mean"), (2, "root mean square")):
                ours, theirs = ([float(sample[what][part]) for sample in who] for who in (samples, first))
                floor_error = TOLERANCE * max(float(sample[what][2]) for sample in (*samples, *first))
                distance = standard_errors(ours, theirs, floor_error)
                if not distance <= STANDARD_ERRORS:
                    told = f"{statistics.mean(ours):.6g}, that of {gated[0].name} {statistics.mean(theirs):.6g}"
                    refuse(case, contender, f"{statistic} of the {what} is {told}: {distance:.0f} standard errors")
                furthest = max(furthest, distance)
    return furthest


def standard_errors(ours: list[float], theirs: list[float], rounding: float) -> float:
    """The difference of two means in standard errors; what is less than the rounding counts as none."""
    difference = abs(statistics.mean(ours) - statistics.mean(theirs))
    if difference <= rounding:
        return 0.0
    variance = (statistics.variance(ours) + statistics.variance(theirs)) / len(ours)
    return difference / math.sqrt(variance) if variance > 0 else math.inf


Statistic = tuple[str, Tensor, Tensor]
"""Shape and dtype in words, mean, root mean square."""


def one_draw(contender: Contender, direction: dict[str, Tensor]) -> dict[str, Statistic]:
    """Statistics of one step (outputs and gradients), or of the outputs alone where no gradient is wanted."""
    if contender.mode == "step":
        outputs = contender.backward()
    else:
        with torch.no_grad():
            outputs = contender.outputs(contender.x)
    tensors = dict(zip(("output", "penalty"), outputs, strict=False))
    if contender.mode == "step":
        named = {name: parameter.grad for name, parameter in contender.module.named_parameters()}
        named["input"] = contender.x.grad
        tensors |= {f"gradient of {name}": grad for name, grad in named.items() if grad is not None}
    found = {name: statistic(tensor.detach()) for name, tensor in tensors.items()}
    for name, dense in direction.items():
        # The gradient of a weight is that of a dense layer times the gate, so this is a mean gate, whoever drew it.
        found["mean gate"] = statistic((contender.module.get_parameter(name).grad * dense).sum() / dense.square().sum())
    return found


def statistic(tensor: Tensor) -> Statistic:
    kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
    return kind, tensor.mean(), torch.linalg.vector_norm(tensor, dtype=torch.float64) / math.sqrt(tensor.numel())


def dense_gradient(floor: Contender) -> dict[str, Tensor]:
    """Gradient of the weight of a dense layer, by the weight's name; nothing for a model of several layers."""
    if floor.mode != "step" or floor.case.floor != "dense" or not hasattr(floor.module, "weight"):
        return {}
    floor.backward()
    return {"weight": floor.module.weight.grad}


def same_kind(case: Case, contender: Contender, what: str, ours: Tensor, theirs: Tensor) -> None:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        refuse(case, contender, f"{what} is {ours.dtype} {list(ours.shape)}, expected {theirs.dtype} {theirs.shape}")


def refuse(case: Case, contender: Contender, why: str) -> None:
    raise DisagreementError(f"{contender.name} on {case.key}: {why}; nothing was timed")
