"""Calibration problems on the device, and what plain torch makes of them in float64: the truth at full size."""

from dataclasses import dataclass, replace

import torch
from problems import BETA, GAMMA, LAMBDA_L0, LAMBDA_L2, ZETA
from torch import Tensor

from l0fast import reference

CHUNK = 1 << 25
"""Nonzeros that are worked on together: temporaries of some hundred megabytes."""

GATE_SHAPE = {"temperature": BETA, "gamma": GAMMA, "zeta": ZETA}


@dataclass(frozen=True)
class DeviceProblem:
    """M in compressed columns as the ops take it, all on one device, and targets y for the totals M w."""

    name: str
    n_targets: int
    indptr: Tensor
    rows: Tensor
    values: Tensor
    y: Tensor
    """[n_targets] float64."""

    @property
    def n_records(self) -> int:
        return self.indptr.numel() - 1

    @property
    def matrix(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.indptr, self.rows, self.values

    def first_columns(self, count: int) -> "DeviceProblem":
        """The first so many records, without a copy; the targets stay."""
        end = int(self.indptr[count])
        return DeviceProblem(
            self.name, self.n_targets, self.indptr[: count + 1], self.rows[:end], self.values[:end], self.y
        )

    def blocks(self):
        """(first record, one past the last, first nonzero, one past the last) of blocks of some CHUNK nonzeros."""
        step = max(1, CHUNK * self.n_records // max(1, self.values.numel()))
        for begin in range(0, self.n_records, step):
            end = min(begin + step, self.n_records)
            yield begin, end, int(self.indptr[begin]), int(self.indptr[end])

    def __str__(self) -> str:
        return f"{self.name}: {self.n_targets:,} targets x {self.n_records:,} records, {self.values.numel():,} nonzeros"


def random_problem(name: str, n_targets: int, n_records: int, per_column: int, device: torch.device) -> DeviceProblem:
    """Exactly per_column sorted, distinct rows for each record and positive values; weights of about 1 meet y.

    Made on the device, in blocks: the running sums of exponential draws over their total are sorted uniform numbers;
    scaled to 0 .. n_targets - per_column and with 0, 1, 2, ... added they are distinct rows.
    """
    generator = torch.Generator(device=device).manual_seed(n_targets)
    rows = torch.empty(n_records, per_column, dtype=torch.int16, device=device)
    values = torch.empty(n_records, per_column, dtype=torch.float32, device=device)
    y = torch.zeros(n_targets, dtype=torch.float64, device=device)
    places = torch.arange(per_column, device=device)
    step = max(1, CHUNK // per_column)
    for begin in range(0, n_records, step):
        count = min(step, n_records - begin)
        sums = torch.empty(count, per_column + 1, device=device).exponential_(generator=generator).cumsum(1)
        spread = n_targets - per_column
        block = (sums[:, :-1] / sums[:, -1:] * (spread + 1)).to(torch.int64).clamp_(max=spread) + places
        drawn = torch.empty(count, per_column, device=device).uniform_(0.5, 1.5, generator=generator)
        weight = torch.empty(count, 1, device=device).log_normal_(0.0, 0.5, generator=generator)
        y.index_add_(0, block.flatten(), (drawn.double() * weight).flatten())
        rows[begin : begin + count] = block.to(torch.int16)
        values[begin : begin + count] = drawn
    indptr = torch.arange(0, rows.numel() + 1, per_column, dtype=torch.int64, device=device)
    return DeviceProblem(name, n_targets, indptr, rows.flatten().view(torch.uint16), values.flatten(), y)


def from_scipy(name: str, M, y, device: torch.device) -> DeviceProblem:
    from l0fast.calibration.matrix import pack

    packed = pack(M, device=device)
    targets = torch.as_tensor(y, dtype=torch.float64).to(device)
    return DeviceProblem(name, packed.n_targets, packed.indptr, packed.rows, packed.values, targets)


def plain_totals(problem: DeviceProblem, weight: Tensor) -> Tensor:
    """M w in float64, by torch alone."""
    totals = torch.zeros_like(problem.y)
    for begin, end, low, high in problem.blocks():
        indptr = problem.indptr[begin : end + 1] - low
        arrays = (indptr, problem.rows[low:high], problem.values[low:high].double(), problem.n_targets)
        totals += reference.column_totals(weight[begin:end], *arrays)
    return totals


def plain_gradient(problem: DeviceProblem, pull: Tensor) -> Tensor:
    """M^T r in float64, by torch alone."""
    gradient = torch.zeros(problem.n_records, dtype=torch.float64, device=problem.y.device)
    for begin, end, low, high in problem.blocks():
        terms = problem.values[low:high].double() * pull[problem.rows[low:high].to(torch.int64)]
        places = torch.arange(end - begin, device=terms.device)
        columns = torch.repeat_interleave(places, problem.indptr[begin : end + 1].diff())
        gradient[begin:end].index_add_(0, columns, terms)
    return gradient


@dataclass(frozen=True)
class Truth:
    """Of one epoch with the relative loss, in float64; gradients [n_records]."""

    totals: Tensor
    totals_scale: Tensor
    data_loss: float
    grad_weight: Tensor
    grad_alpha: Tensor


def truth_of(problem: DeviceProblem, log_weight: Tensor, log_alpha: Tensor, seed: Tensor, stream: int) -> Truth:
    """The formulas of DESIGN 3 on the tensors' own device; gates by l0fast/reference."""
    parameters = [p.double().requires_grad_() for p in (log_weight, log_alpha)]
    weight = parameters[0].exp() * reference.hard_concrete(parameters[1], seed, stream=stream, **GATE_SHAPE)
    totals = plain_totals(problem, weight.detach())
    scales = problem.y + 1
    pull = 2 * (totals - problem.y) / scales.square()
    gradient = plain_gradient(problem, pull)
    penalty = reference.l0_penalty(parameters[1], **GATE_SHAPE)
    squares = parameters[0].exp().square().sum()
    ((weight * gradient).sum() + LAMBDA_L0 * penalty + LAMBDA_L2 * squares).backward()
    data_loss = ((totals - problem.y) / scales).square().sum()
    scale = totals_scale(problem, weight.detach())
    return Truth(totals, scale, float(data_loss), *(p.grad for p in parameters))


def totals_scale(problem: DeviceProblem, weight: Tensor) -> Tensor:
    """|M| w of each target for w >= 0, and not 0: errors of totals are measured in it."""
    absolute = replace(problem, values=problem.values.abs()) if bool((problem.values < 0).any()) else problem
    return plain_totals(absolute, weight).clamp(min=1e-30)
