"""What must hold before times mean anything: CPU and device agree over 100 epochs, and two runs give the same bits."""

import sys

import torch
from agreement import DisagreementError
from common import ROOT
from cuda_calibration import Ours
from cuda_problems import DeviceProblem, random_problem
from cuda_report import Report

from l0fast import ops, reference

sys.path.append(str(ROOT / "tests"))
from compare import assert_as_good_as_torch

EPOCHS = 100
SETTINGS = {"temperature": 0.35, "lambda_l0": 1e-4, "lambda_l2": 1e-6, "lr": 0.02, "epochs": EPOCHS}

WITHIN = "CPU and device agree over 100 calibration epochs within the tolerance rule"
SAME_BITS = "the same bits, run after run"


def epochs_on(function, problem: DeviceProblem, dtype: torch.dtype, device) -> tuple:
    """Losses and parameters after 100 epochs from one start, everything back on the CPU."""
    generator = torch.Generator().manual_seed(3)
    start = [torch.randn(problem.n_records, generator=generator) * s + m for s, m in ((0.3, 0.0), (1.0, 1.0))]
    state = [*start, *(torch.zeros(problem.n_records) for _ in range(4))]
    state = [x.to(device=device, dtype=dtype) for x in state]
    indptr, rows, values = (t.to(device) for t in problem.matrix)
    y = problem.y.to(device)
    arguments = (indptr, rows, values.to(dtype), y, y + 1, torch.ones_like(y) / len(y), None, None)
    metrics = function.calibration_epochs_(*state, *arguments, torch.tensor([99], device=device), **SETTINGS)
    # The losses are float64 in all runs; as values of a float32 run they are compared as float32.
    return metrics[:, 0].to("cpu", dtype), state[0].cpu(), state[1].cpu()


def check_hundred_epochs(report: Report, device: torch.device, shape: tuple[int, int, int]) -> None:
    """Losses and parameters of the device after 100 epochs, against float64 by tests/compare.py's rule.

    Raises:
        DisagreementError: the rule does not hold; the message names what is off.
    """
    problem = random_problem("agreement", *shape, torch.device("cpu"))
    ours = epochs_on(ops, problem, torch.float32, device)
    on_cpu = epochs_on(ops, problem, torch.float32, "cpu")
    plain, true = (epochs_on(reference, problem, dtype, "cpu") for dtype in (torch.float32, torch.float64))
    furthest = 0.0
    for what, *three, cpu in zip(("losses", "log_weight", "log_alpha"), ours, plain, true, on_cpu, strict=True):
        for where, result in (("device", three[0]), ("CPU kernels", cpu)):
            try:
                assert_as_good_as_torch(result, *three[1:], what)
            except AssertionError as error:
                report.find(WITHIN, False, f"{where}: {error or what}")
                raise DisagreementError(f"check failed: 100 epochs, {where}: {error or what}") from None
        furthest = max(furthest, float((three[0] - cpu).abs().max()))
    report.find(WITHIN, True, f"device and CPU differ by {furthest:.1e} at most")


def check_same_bits(report: Report, problem: DeviceProblem, epochs: int = 20) -> None:
    """Two runs of moving epochs from one start.

    Raises:
        DisagreementError: they differ; the message names the tensor.
    """
    runs = []
    for _ in range(2):
        run = Ours(problem, "closed90")
        metrics = run.epochs(epochs, lr=0.01)
        runs.append([metrics, *run.state()])
    names = ("metrics", "log_weight", "log_alpha", "moments 1", "moments 2", "moments 3", "moments 4")
    for name, a, b in zip(names, *runs, strict=True):
        if not torch.equal(a, b):
            report.find(SAME_BITS, False, f"{problem.name}: {name} differs after {epochs} epochs")
            raise DisagreementError(f"check failed: {problem.name}: {name} of two runs of the same seed differ")
    report.find(SAME_BITS, True, f"{problem.name}: {epochs} epochs twice")
