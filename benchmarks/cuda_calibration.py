"""Calibration epochs on the device: checked at full size, then timed against l0-python and the roofline.

l0fast is timed as whole calls of ops.calibration_epochs_, what such a call does once (looking over the matrix, a first
forward pass) included. l0-python is timed as whole calls of its own ``fit``, less one of no epochs; its matrix is given
to it on the device, in the COO form that it makes itself, because building that on the host would take minutes.
The step is 1e-12, so that the gates stay as open as the state says.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from agreement import OUR_TOLERANCES, TOLERANCES, DisagreementError
from contenders import FIT, GATES
from cuda_bytes import epoch_bytes
from cuda_problems import GATE_SHAPE, DeviceProblem, from_scipy, random_problem, totals_scale, truth_of
from cuda_report import CALIBRATIONS, OURS, PEER, Report
from cuda_timing import Budget, Timer, measure
from layer_contenders import installed
from problems import LAMBDA_L0, LAMBDA_L2, STATES, STILL, log_alpha_of, make_problem
from torch import Tensor

from l0fast import constants, ops

SMALL_NNZ = 1 << 25
"""Nonzeros below which l0-python is only tried at full size."""

FRACTIONS = (16, 4, 1)
"""Of the records, for l0-python: it goes on to the larger share while memory and time allow."""


class Ours:
    """A run of l0fast on a problem, in a state."""

    def __init__(self, problem: DeviceProblem, state: str):
        device, n = problem.y.device, problem.n_records
        self.problem = problem
        self.log_weight = torch.randn(n, generator=torch.Generator().manual_seed(1)).mul_(0.3).to(device)
        self.log_alpha = log_alpha_of(state, n).to(device)
        self.moments = [torch.zeros_like(self.log_weight) for _ in range(4)]
        self.seed = torch.tensor([20240217], device=device)
        self.epoch, self.open_share = 0, 0.0

    def epochs(self, count: int, lr: float = STILL) -> Tensor:
        problem = self.problem
        metrics = ops.calibration_epochs_(
            *(self.log_weight, self.log_alpha, *self.moments, *problem.matrix),
            *(problem.y, problem.y + 1, torch.ones_like(problem.y), None, None, self.seed),
            **GATE_SHAPE,
            lambda_l0=LAMBDA_L0,
            lambda_l2=LAMBDA_L2,
            lr=lr,
            first_epoch=self.epoch,
            epochs=count,
        )
        self.epoch += count
        return metrics

    def state(self) -> list[Tensor]:
        return [self.log_weight, self.log_alpha, *self.moments]


class Matrix:
    """What l0-python's fit asks of a matrix that it has converted before."""

    def __init__(self, coo: Tensor):
        self.shape, self.nnz = tuple(coo.shape), coo._nnz()


def coo_of(problem: DeviceProblem) -> Tensor:
    """M as l0-python makes it of compressed rows: COO, in order of rows, not marked as coalesced."""
    rows = problem.rows.to(torch.int32)
    order = torch.argsort(rows, stable=True)
    columns = torch.repeat_interleave(
        torch.arange(problem.n_records, dtype=torch.int32, device=rows.device), problem.indptr.diff()
    )
    indices = torch.stack([rows[order].to(torch.int64), columns[order].to(torch.int64)])
    shape = (problem.n_targets, problem.n_records)
    return torch.sparse_coo_tensor(indices, problem.values[order], shape, check_invariants=False)


class Peer:
    """l0-python's own model in a state."""

    def __init__(self, coo: Tensor, problem: DeviceProblem, state: str, log_weight: Tensor):
        from l0.calibration import SparseCalibrationWeights

        self.matrix = Matrix(coo)
        self.y = problem.y.cpu().numpy()
        self.model = SparseCalibrationWeights(problem.n_records, device=str(problem.y.device), **GATES)
        self.model._cached_M_torch, self.model._cached_M_shape = coo, self.matrix.shape
        with torch.no_grad():
            self.model.log_weight.copy_(log_weight)
            self.model.log_alpha.copy_(log_alpha_of(state, problem.n_records))

    def epochs(self, count: int) -> None:
        self.model.fit(self.matrix, self.y, epochs=count, **FIT)


# -- checks -----------------------------------------------------------------------------------------------------------


def check_ours(problem: DeviceProblem) -> None:
    """An epoch of the timed call at full size: totals, loss and both gradients, which Adam's first moments hold.

    Raises:
        DisagreementError: an error is beyond agreement.OUR_TOLERANCES, or is no number; the message names it.
    """
    for state in STATES:
        run = Ours(problem, state)
        truth = truth_of(problem, run.log_weight, run.log_alpha, run.seed, 0)
        totals, _ = ops.gated_totals(
            *(run.log_weight, run.log_alpha, *problem.matrix, problem.n_targets, run.seed), **GATE_SHAPE
        )
        metrics = run.epochs(1)
        run.open_share = float(metrics[0, 3]) / problem.n_records
        grad_weight, grad_alpha = (run.moments[k] / (1 - constants.ADAM_BETA1) for k in (0, 2))
        errors = {
            "totals": float(((totals.double() - truth.totals).abs() / truth.totals_scale).max()),
            "loss": abs(float(metrics[0, 0]) - truth.data_loss) / truth.data_loss,
            "gradient of log_weight": norm_error(grad_weight, truth.grad_weight),
            "gradient of log_alpha": norm_error(grad_alpha, truth.grad_alpha),
        }
        for what, error in errors.items():
            refuse(error, OUR_TOLERANCES[what], f"calibration of {problem.name}, {state}: {what}")
        print(f"  {state}: largest error {max(errors.values()):.1e}, {run.open_share:.1%} open", flush=True)


def norm_error(got: Tensor, true: Tensor) -> float:
    return float((got.double() - true).norm() / true.norm())


def refuse(error: float, allowed: float, what: str) -> None:
    if not error <= allowed:
        raise DisagreementError(f"check failed: {what} is off by {error:.1e}, allowed {allowed:.0e}; it was not timed")


def check_peer(peer: Peer, ours: Ours) -> None:
    """Totals of deterministic gates."""
    problem = ours.problem
    with torch.no_grad():
        theirs = peer.model.predict(peer.matrix).double()
        parameters = (ours.log_weight, ours.log_alpha)
        totals = ops.gated_totals(*parameters, *problem.matrix, problem.n_targets, **GATE_SHAPE)[0].double()
        scale = totals_scale(problem, ours.log_weight.double().exp())
    error = float(((theirs - totals).abs() / scale).max())
    refuse(error, TOLERANCES["totals"], f"l0-python on {problem.name}: totals")


# -- times ------------------------------------------------------------------------------------------------------------


def per_sample(timer: Timer, epochs: Callable[[int], object]) -> int:
    """Epochs in a call that takes about timer.pace.epochs seconds, after one that does not count."""
    seconds = timer.pace.epochs
    timer.seconds(lambda: epochs(1))
    guess = timer.seconds(lambda: epochs(1))
    if guess < seconds / 8:
        guess = timer.seconds(lambda: epochs(8)) / 8
    return max(1, round(seconds / max(guess, 1e-9)))


def measure_epochs(timer: Timer, contenders: dict, seconds: float) -> dict[str, list[float]]:
    """Seconds an epoch, contender by name; each in turn."""
    counts = {name: per_sample(timer, contender.epochs) for name, contender in contenders.items()}
    works = {name: lambda c=contender, k=counts[name]: c.epochs(k) for name, contender in contenders.items()}
    idle = {
        name: min(timer.seconds(lambda c=contender: c.epochs(0)) for _ in range(3)) if PEER in name else 0.0
        for name, contender in contenders.items()
    }
    samples = measure(timer, works, seconds, sample=0.0)
    return {name: [max(s - idle[name], 1e-9) / counts[name] for s in times] for name, times in samples.items()}


def run_problem(report: Report, timer: Timer, budget: Budget, problem: DeviceProblem) -> None:
    """Checks and times l0fast at full size, then both in turns: at full size, or as large as l0-python can be run."""
    print(f"  {problem}", flush=True)
    check_ours(problem)
    ours = {state: Ours(problem, state) for state in STATES}
    alone = measure_epochs(timer, ours, budget.left() * (0.3 if installed() else 1.0))
    peers, size = peers_of(report, timer, budget, problem) if installed() else ({}, 1)
    beside = {}
    if peers:
        part = problem if size == 1 else problem.first_columns(problem.n_records // size)
        for state in STATES:
            pair = {OURS: ours[state] if size == 1 else Ours(part, state), PEER: peers[state]}
            beside[state] = measure_epochs(timer, pair, budget.left() / (2 if state == STATES[0] else 1))
    for state in STATES:
        opened = float(ours[state].epochs(1)[0, 3]) / problem.n_records
        needed = epoch_bytes(problem, opened)
        samples = beside[state] if size == 1 and peers else {OURS: alone[state]}
        report.add("calibration", problem.name, state, samples, lambda name, b=needed: b if name == OURS else None)
        if size > 1 and state in beside:
            report.add("calibration", problem.name, f"{state}, equal size", beside[state], note=f"1/{size} of records")


def peers_of(report: Report, timer: Timer, budget: Budget, problem: DeviceProblem) -> tuple[dict[str, Peer], int]:
    """l0-python in both states at the largest share of the records that memory and the time left allow."""
    found, size = {}, 1
    small = problem.values.numel() < SMALL_NNZ
    for fraction in FRACTIONS[-1:] if small else FRACTIONS:
        part = problem if fraction == 1 else problem.first_columns(problem.n_records // fraction)
        try:
            coo = coo_of(part)
            log_weight = Ours(part, STATES[0]).log_weight
            peers = {state: Peer(coo, part, state, log_weight) for state in STATES}
            check_peer(peers[STATES[0]], Ours(part, STATES[0]))
            timer.seconds(lambda p=peers: p[STATES[0]].epochs(1))
            began = time.monotonic()
            timer.seconds(lambda p=peers: p[STATES[0]].epochs(1))
            seconds = time.monotonic() - began
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            report.note(f"{problem.name}: l0-python cannot run 1/{fraction} of it: {str(error).splitlines()[0]}")
            break
        found, size = peers, fraction
        steps = FRACTIONS[FRACTIONS.index(fraction) + 1 :]
        # Both states, with warm-up, idle runs and the least number of rounds, and building the larger matrix.
        if steps and seconds * fraction / steps[0] * (2 * (timer.pace.least + 5)) > budget.left():
            report.note(f"{problem.name}: l0-python takes {seconds:.2f} s an epoch at 1/{fraction}: no larger one fits")
            break
    return found, size


# -- which problems ---------------------------------------------------------------------------------------------------


def problem_named(name: str, device: torch.device, quick: bool, cps: Path | None, cache: Path) -> DeviceProblem:
    """One of cuda_report.CALIBRATIONS, or with quick a toy in its place.

    Raises:
        OSError: the CPS problem is neither at hand nor to be fetched.
    """
    if quick:
        shape = {"cps280k": (200, 900, 7), "33k x 338k": (300, 1500, 6), "13k x 5.2m": (130, 4000, 8)}[name]
        return random_problem(name, *shape, device)
    if name == CALIBRATIONS[0]:
        problem = make_problem("cps280k", cps, cache)
        return from_scipy(name, problem.M, problem.y, device)
    shape = {"33k x 338k": (32_633, 337_704, 60), "13k x 5.2m": (13_000, 5_200_000, 80)}[name]
    return random_problem(name, *shape, device)
