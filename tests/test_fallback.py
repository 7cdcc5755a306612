"""Without the compiled library everything works through l0fast/reference, and says so once."""

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch

from l0fast import _load, ops, reference

RUN = """
import json, warnings
warnings.simplefilter("error")  # a forced fallback is what was asked for: no warning
import numpy as np, torch
from scipy import sparse as sp
from l0fast import _load
from l0fast.calibration import SparseCalibrationWeights
generator = np.random.default_rng(7)
M = sp.random(20, 300, density=0.2, format="csr", random_state=generator)
y = M @ generator.uniform(0.5, 1.5, 300)
model = SparseCalibrationWeights(300, beta=0.35, seed=1, log_weight_jitter_sd=0.05)
model.fit(M, y, epochs=40, lr=0.05, lambda_l0=1e-4, loss_type="relative")
print(json.dumps([_load.native_error(), _load.host() is None, *model.history["loss"], *model.predict(M).tolist()]))
"""


def run(code=RUN, **environment):
    environment = {**os.environ, **environment}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(output.stdout)


def test_forced_fallback_gives_the_same_run(native):
    error, no_host, *slow = run(L0FAST_FALLBACK="1")
    assert error == "L0FAST_FALLBACK is set" and no_host
    error, no_host, *fast = run(L0FAST_FALLBACK="0")
    assert error is None and not no_host
    torch.testing.assert_close(torch.tensor(slow), torch.tensor(fast), rtol=1e-3, atol=1e-4)


@pytest.fixture
def missing_library(monkeypatch):
    monkeypatch.setattr(_load, "_NATIVE_ERROR", "no compiled library _C in /somewhere")
    _load.warn_fallback.cache_clear()
    yield
    _load.warn_fallback.cache_clear()


def test_missing_library_warns_once_with_the_reason(missing_library, monkeypatch):
    monkeypatch.delenv("L0FAST_FALLBACK", raising=False)
    a, seed = torch.randn(10), torch.tensor([1])
    with pytest.warns(RuntimeWarning, match=r"plain torch, slower: no compiled library _C in .*; build it with"):
        z = ops.hard_concrete(a, seed)
    assert torch.equal(z, reference.hard_concrete(a, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.l0_penalty(a)


def test_other_devices_are_not_silently_slow(monkeypatch):
    monkeypatch.delenv("L0FAST_FALLBACK", raising=False)
    _load.warn_fallback.cache_clear()
    with pytest.warns(RuntimeWarning, match="this build has no kernels for meta tensors|no compiled library"):
        ops.l0_penalty(torch.randn(10, device="meta"))
    _load.warn_fallback.cache_clear()


STEP = """
import json, torch, l0fast
layer = l0fast.L0Linear(512, 520)
with torch.no_grad():
    for p in layer.parameters():
        p.copy_(torch.linspace(-2, 2, p.numel()).view(p.shape))
torch.manual_seed(1)
(layer(torch.linspace(-1, 1, 1024).view(2, 512)).square().mean() + layer.get_l0_penalty() / 1e3).backward()
print(json.dumps([[p.grad.sum().item(), p.grad.abs().sum().item()] for p in layer.parameters()]))
"""


def test_a_large_layer_trains_without_the_library(native):
    """Its own node needs kernels: elsewhere plain torch takes its place."""
    slow, fast = (run(STEP, L0FAST_FALLBACK=forced) for forced in "10")
    torch.testing.assert_close(torch.tensor(slow), torch.tensor(fast), rtol=1e-3, atol=1e-3)
