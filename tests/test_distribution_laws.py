"""The law of the gates: ten million draws against the closed forms of the stretched and clamped concrete distribution.

P(z <= x) = sigmoid(beta logit((x - gamma) / (zeta - gamma)) - log_alpha) for 0 <= x < 1: Louizos, Welling, Kingma 2018.
"""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit, logit

from l0fast import HardConcrete

DRAWS = 10_000_000
GRID = [(-3.0, 0.5), (-1.0, 2 / 3), (0.0, 0.1), (0.0, 0.5), (0.7, 3.0), (2.0, 0.5), (4.0, 0.25)]  # log_alpha, beta
STRETCH = 0.1


def cdf(x: float, log_alpha: float, beta: float, stretch: float = STRETCH) -> float:
    return float(expit(beta * logit((x + stretch) / (1 + 2 * stretch)) - log_alpha))


def mean(log_alpha: float, beta: float, stretch: float = STRETCH) -> float:
    """E z: its density on (0, 1) integrated, and P(z = 1)."""

    def density(x):
        s, p = (x + stretch) / (1 + 2 * stretch), cdf(x, log_alpha, beta, stretch)
        return p * (1 - p) * beta / (s * (1 - s) * (1 + 2 * stretch))

    inside = quad(lambda x: x * density(x), 0, 1, epsabs=1e-12, epsrel=1e-12, limit=400)[0]
    return inside + 1 - cdf(1, log_alpha, beta, stretch)


def agrees(samples: torch.Tensor, expected: float) -> bool:
    """Whether the mean of the samples is within four standard errors; at least 1e-7, float32's own."""
    samples = samples.double()
    error = samples.std().item() / math.sqrt(samples.numel())
    return abs(samples.mean().item() - expected) < 4 * error + 1e-7


@pytest.mark.parametrize(("log_alpha", "beta"), GRID)
def test_two_forms_of_the_mean(log_alpha, beta):
    """The density used below is the CDF's: E z = 1 - integral of the CDF over [0, 1]."""
    by_cdf = 1 - quad(cdf, 0, 1, args=(log_alpha, beta), epsabs=1e-12, epsrel=1e-12, limit=400)[0]
    assert mean(log_alpha, beta) == pytest.approx(by_cdf, abs=1e-9)


@pytest.mark.parametrize(("log_alpha", "beta"), GRID)
def test_draws_follow_the_law(native, log_alpha, beta):
    """Means of z, of z = 0, of z = 1, of z <= 1/2, and of dz/dlog_alpha, which must be the derivative of E z."""
    gates = HardConcrete(DRAWS, temperature=beta, stretch=STRETCH, init_mean=None)
    with torch.no_grad():
        gates.qz_logits.fill_(log_alpha)
    z = gates()
    (slope,) = torch.autograd.grad(z.sum(), gates.qz_logits)
    z = z.detach()
    assert agrees(z, mean(log_alpha, beta))
    assert agrees(z == 0, cdf(0, log_alpha, beta))
    assert agrees(z <= 0.5, cdf(0.5, log_alpha, beta))
    assert agrees(z == 1, 1 - cdf(1, log_alpha, beta))
    h = 1e-4
    derivative = (mean(log_alpha + h, beta) - mean(log_alpha - h, beta)) / (2 * h)
    assert agrees(slope, derivative)
    small = HardConcrete(1, temperature=beta, stretch=STRETCH, init_mean=None, dtype=torch.float64)
    with torch.no_grad():
        small.qz_logits.fill_(log_alpha)
    assert small.get_penalty().item() == pytest.approx(1 - cdf(0, log_alpha, beta), abs=1e-12)


def test_another_stretch_and_a_planted_error(native):
    """The comparison sees a gate that is off by a thousandth."""
    gates = HardConcrete(DRAWS, stretch=0.4)
    z = gates().detach()
    assert agrees(z, mean(0.0, 0.5, 0.4)) and agrees(z == 0, cdf(0, 0.0, 0.5, 0.4))
    assert not agrees(z + 1e-3, mean(0.0, 0.5, 0.4))
    assert not agrees(z == 0, cdf(0, 0.0, 0.5, 0.4) + 1e-3)


def test_neighbours_are_independent(native):
    """Correlation of z with its neighbour 1, 2, 4 and 1024 places on, and with the next draw: below 4 / sqrt(n)."""
    gates = HardConcrete(1_000_000)
    z, other = (x.detach().double() - x.detach().double().mean() for x in (gates(), gates()))
    scale = z.square().mean()
    for lag in (1, 2, 4, 1024):
        assert abs((z[lag:] * z[:-lag]).mean() / scale) < 4 / math.sqrt(len(z) - lag)
    assert abs((z * other).mean() / scale) < 4 / math.sqrt(len(z))
