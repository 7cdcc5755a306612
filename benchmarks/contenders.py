"""Who is measured: l0-python, what an expert would write in torch, and l0fast. Each runs whole epochs by itself.

A contender is built on a problem, put into a state, and then has ``fit(epochs)``, which is what is timed, and
``totals()`` and ``epoch_result(noise)``, which agreement.py compares before anything is timed.
"""

import importlib.util
import math
import warnings
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from common import l0fast, timed
from problems import BETA, GAMMA, LAMBDA_L0, LAMBDA_L2, OPEN_KEEP_PROB, STILL, ZETA, Problem
from torch import Tensor

from l0fast import constants, reference

FIT = {"lambda_l0": LAMBDA_L0, "lambda_l2": LAMBDA_L2, "lr": STILL, "loss_type": "relative"}
GATES = {"beta": BETA, "gamma": GAMMA, "zeta": ZETA, "init_keep_prob": OPEN_KEEP_PROB, "log_alpha_jitter_sd": 0.0}


@dataclass(frozen=True)
class EpochResult:
    """Loss and gradients [n_records] of one epoch, and the uniform noise [n_records] that it drew its gates from."""

    loss: float
    grad_weight: Tensor
    grad_alpha: Tensor
    noise: Tensor


class ModelContender:
    """What l0-python and l0fast have in common: the same class with the same arguments."""

    def __init__(self, problem: Problem, model_class):
        self.problem = problem
        self.model = model_class(problem.n_records, init_weights=problem.w0, **GATES)

    def set_state(self, log_weight: Tensor, log_alpha: Tensor) -> None:
        with torch.no_grad():
            self.model.log_weight.copy_(log_weight)
            self.model.log_alpha.copy_(log_alpha)

    def totals(self) -> Tensor:
        return self.model.predict(self.problem.M)


class L0Python(ModelContender):
    name = "l0-python"

    def __init__(self, problem: Problem, plan: dict | None = None):
        from l0.calibration import SparseCalibrationWeights

        super().__init__(problem, SparseCalibrationWeights)

    def fit(self, epochs: int) -> None:
        self.model.fit(self.problem.M, self.problem.y, epochs=epochs, **FIT)

    def epoch_result(self, noise: Tensor) -> EpochResult:
        """One epoch of its own fit, which leaves the gradients behind; only the draw is replaced."""
        y = torch.tensor(self.problem.y, dtype=torch.float32)
        with mock.patch.object(torch, "rand_like", lambda like: noise.to(like.dtype)):
            self.fit(1)
            with torch.no_grad():
                data = ((y - self.model.forward(self.problem.M)) / (y + 1)).square().sum()
                penalties = LAMBDA_L0 * self.model.get_l0_penalty() + LAMBDA_L2 * self.model.get_l2_penalty()
        return EpochResult(float(data + penalties), self.model.log_weight.grad, self.model.log_alpha.grad, noise)


class L0Fast(ModelContender):
    name = "l0fast"

    def __init__(self, problem: Problem, plan: dict | None = None):
        super().__init__(problem, l0fast.SparseCalibrationWeights)
        self.packed = self.model.pack(problem.M)

    def fit(self, epochs: int) -> None:
        self.model.fit(self.packed, self.problem.y, epochs=epochs, **FIT)

    def own_epoch_result(self) -> EpochResult:
        """One epoch with noise of its own, which the seed tells. Adam's first moments hold the gradients."""
        self.fit(1)
        run = self.model._run
        gradients = (run.moments[name] / (1 - constants.ADAM_BETA1) for name in ("weight_exp_avg", "alpha_exp_avg"))
        noise = reference.uniform_at(run.seed, 0, 0, self.problem.n_records)
        return EpochResult(float(self.model.history["loss"][0]), *gradients, noise)

    def open_share(self) -> float:
        """Share of the gates that the latest run drew open."""
        return float(np.mean(self.model.history["open_gates"])) / self.problem.n_records


class Product(torch.autograd.Function):
    """M w. The backward pass is a product with the transpose, which is built once instead of at every step."""

    @staticmethod
    def forward(ctx, weights, multiply, multiply_transposed):
        ctx.multiply_transposed = multiply_transposed
        return multiply(weights)

    @staticmethod
    def backward(ctx, grad_totals):
        return ctx.multiply_transposed(grad_totals), None, None


PRODUCTS = ("int32 mv", "int32 mm", "int64 mv", "int64 mm")
"""Ways to multiply a CSR matrix with a vector: two widths of index, two functions of torch."""


def product(matrix, way: str):
    """The function that multiplies a scipy CSR matrix with a vector in one of the PRODUCTS."""
    width, function = way.split()
    index = getattr(torch, width)
    arrays = (torch.from_numpy(matrix.indptr).to(index), torch.from_numpy(matrix.indices).to(index))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that CSR is in beta and goes unchecked
        A = torch.sparse_csr_tensor(*arrays, torch.from_numpy(matrix.data), matrix.shape)
    if function == "mv":
        return lambda vector: A @ vector
    return lambda vector: torch.sparse.mm(A, vector.unsqueeze(1)).squeeze(1)


def shortest(work, repeats: int = 7) -> float:
    """Seconds of the shortest of some calls, after one that does not count."""
    work()
    return min(timed(work) for _ in range(repeats))


class ExpertTorch:
    """Eager torch by someone who knows it: CSR of M and of its transpose built once, own backward, the best Adam.

    Which product and which Adam are best is measured at the start, on this machine and this problem: ``plan``.
    """

    name = "expert torch"

    def __init__(self, problem: Problem, plan: dict | None = None):
        self.problem = problem
        self.y = torch.tensor(problem.y, dtype=torch.float32)
        self.log_weight = torch.zeros(problem.n_records, requires_grad=True)
        self.log_alpha = torch.zeros(problem.n_records, requires_grad=True)
        self.uniform = torch.empty(problem.n_records)
        self.plan = dict(plan or {})
        self.multiply = self._fastest_product("M", problem.M)
        self.multiply_transposed = self._fastest_product("Mt", problem.M.T.tocsr())
        if "adam" not in self.plan:
            self.plan["adam"] = min(("foreach", "fused"), key=self._adam_seconds)

    def _fastest_product(self, which: str, matrix):
        if which not in self.plan:
            vector = torch.ones(matrix.shape[1])

            def seconds(way: str) -> float:
                multiply = product(matrix, way)
                return shortest(lambda: multiply(vector))

            self.plan[which] = min(PRODUCTS, key=seconds)
        return product(matrix, self.plan[which])

    def _adam_seconds(self, flavour: str) -> float:
        parameters = [torch.zeros(self.problem.n_records, requires_grad=True) for _ in range(2)]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        return shortest(torch.optim.Adam(parameters, **{flavour: True}).step)

    def set_state(self, log_weight: Tensor, log_alpha: Tensor) -> None:
        with torch.no_grad():
            self.log_weight.copy_(log_weight)
            self.log_alpha.copy_(log_alpha)

    def fit(self, epochs: int) -> None:
        adam = torch.optim.Adam([self.log_weight, self.log_alpha], lr=STILL, **{self.plan["adam"]: True})
        for _ in range(epochs):
            adam.zero_grad()
            self.uniform.uniform_(constants.UNIFORM_EPS, 1 - constants.UNIFORM_EPS)
            self._loss(self.uniform).backward()
            adam.step()

    def _gates(self, logits: Tensor) -> Tensor:
        return (torch.sigmoid(logits / BETA) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def _loss(self, uniform: Tensor) -> Tensor:
        bound = constants.LOG_ALPHA_BOUND
        a = self.log_alpha.clamp(-bound, bound)
        weights = torch.exp(self.log_weight)
        gated = weights * self._gates(torch.logit(uniform) + a)
        totals = Product.apply(gated, self.multiply, self.multiply_transposed)
        data = ((totals - self.y) / (self.y + 1)).square().sum()
        penalty = torch.sigmoid(a - BETA * math.log(-GAMMA / ZETA)).sum()
        return data + LAMBDA_L0 * penalty + LAMBDA_L2 * weights.square().sum()

    def totals(self) -> Tensor:
        with torch.no_grad():
            return self.multiply(torch.exp(self.log_weight) * self._gates(self.log_alpha))

    def epoch_result(self, noise: Tensor) -> EpochResult:
        loss = self._loss(noise.clamp(constants.UNIFORM_EPS, 1 - constants.UNIFORM_EPS))
        gradients = torch.autograd.grad(loss, [self.log_weight, self.log_alpha])
        return EpochResult(float(loss.detach()), *gradients, noise)


CONTENDERS = (L0Python, ExpertTorch, L0Fast)


def available() -> list:
    """The contenders that can run here: l0-python only where it is installed."""
    return [contender for contender in CONTENDERS if contender is not L0Python or importlib.util.find_spec("l0")]
