"""All contenders must compute the same thing before they are timed: compared with l0fast/reference in float64."""

import numpy as np
import torch
from contenders import EpochResult, L0Fast
from problems import BETA, GAMMA, LAMBDA_L0, LAMBDA_L2, STILL, ZETA, Problem
from torch import Tensor

from l0fast import constants, reference

TOLERANCES = {"totals": 1e-3, "loss": 1e-3, "gradient of log_weight": 1e-3, "gradient of log_alpha": 1e-3}
"""Of totals: the largest error, in units of (|M| w)_j. Of a loss: relative. Of a gradient: relative, in norm.

Wide enough for float32 sums of 280,005 numbers one after the other, where l0-python's totals are off by 1.2e-4, and for
p (1 - p) of an open gate, which keeps three or four digits in float32; far below what a wrong formula would do.
"""

OUR_TOLERANCES = {**TOLERANCES, "totals": 1e-5, "loss": 1e-5}
"""l0fast sums in double."""

GATE_SHAPE = {"temperature": BETA, "gamma": GAMMA, "zeta": ZETA}


class DisagreementError(Exception):
    """A contender does not compute what the reference does; its time would mean nothing."""


class Truth:
    """Totals, loss and gradients in float64, for a state of a problem and one draw of noise."""

    def __init__(self, problem: Problem, log_weight: Tensor, log_alpha: Tensor):
        columns = problem.M.tocsc()
        self.parameters = log_weight.double(), log_alpha.double()
        self.matrix = (
            torch.from_numpy(columns.indptr.astype(np.int64)),
            torch.from_numpy(columns.indices.astype(np.int32)),
            torch.from_numpy(columns.data.astype(np.float64)),
        )
        self.targets = torch.from_numpy(np.asarray(problem.y, dtype=np.float64))
        self.totals, _ = reference.gated_totals(*self.parameters, *self.matrix, self.targets.numel(), **GATE_SHAPE)
        indptr, rows, values = self.matrix
        absolute = (indptr, rows, values.abs())
        self.totals_scale, _ = reference.gated_totals(
            *(*self.parameters, *absolute, self.targets.numel()), **GATE_SHAPE
        )

    def epoch_result(self, seed: Tensor, noise: Tensor) -> EpochResult:
        """The first epoch of the run with this seed, whose noise is given in the result."""
        log_weight, log_alpha = (parameter.clone() for parameter in self.parameters)
        moments = [torch.zeros_like(log_weight) for _ in range(4)]
        omega = torch.ones_like(self.targets)
        metrics = reference.calibration_epochs_(
            *(log_weight, log_alpha, *moments, *self.matrix),
            *(self.targets, self.targets + 1, omega, None, None, seed),
            **GATE_SHAPE,
            lambda_l0=LAMBDA_L0,
            lambda_l2=LAMBDA_L2,
            lr=STILL,
        )
        data, probability, squares, _ = metrics[0].tolist()
        gradients = (moments[k] / (1 - constants.ADAM_BETA1) for k in (0, 2))
        return EpochResult(data + LAMBDA_L0 * probability + LAMBDA_L2 * squares, *gradients, noise)


def _norm_error(ours: Tensor, truth: Tensor) -> float:
    return float((ours.double() - truth).norm() / truth.norm())


def errors_of(totals: Tensor, result: EpochResult, truth: Truth, true_result: EpochResult) -> dict[str, float]:
    """The errors of one contender, in the units of TOLERANCES."""
    floor = torch.finfo(torch.float64).tiny
    return {
        "totals": float(((totals.double() - truth.totals).abs() / (truth.totals_scale + floor)).max()),
        "loss": abs(result.loss - true_result.loss) / abs(true_result.loss),
        "gradient of log_weight": _norm_error(result.grad_weight, true_result.grad_weight),
        "gradient of log_alpha": _norm_error(result.grad_alpha, true_result.grad_alpha),
    }


def check(problem: Problem, contenders: list, log_weight: Tensor, log_alpha: Tensor) -> dict[str, dict[str, float]]:
    """Puts all contenders into the state and compares them there; returns each one's errors.

    l0fast draws its own noise; the others are given the same, so that loss and gradients are of the same gates.

    Raises:
        DisagreementError: an error is beyond its tolerance, or is not a number.
    """
    for contender in contenders:
        contender.set_state(log_weight, log_alpha)
    ours = next(contender for contender in contenders if isinstance(contender, L0Fast))
    our_result = ours.own_epoch_result()
    truth = Truth(problem, log_weight, log_alpha)
    true_result = truth.epoch_result(ours.model._run.seed, our_result.noise)
    report = {}
    for contender in contenders:
        result = our_result if contender is ours else contender.epoch_result(our_result.noise)
        errors = errors_of(contender.totals(), result, truth, true_result)
        allowed = OUR_TOLERANCES if contender is ours else TOLERANCES
        for what, error in errors.items():
            if not error <= allowed[what]:
                raise DisagreementError(
                    f"{contender.name} on {problem.name}: error of the {what} is {error:.2e}, "
                    f"allowed {allowed[what]:.0e}; nothing was timed"
                )
        report[contender.name] = errors
    return report
