"""Against l0-python 0.6.2 itself: the same names, arguments, defaults, keys and shapes, and the same results."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse as sp

from l0fast.calibration import SparseCalibrationWeights as Ours

warnings.filterwarnings("ignore", message="Sparse invariant checks", category=UserWarning)
peer = pytest.importorskip("l0.calibration", reason="l0-python is not installed: nothing to compare with")
Theirs = peer.SparseCalibrationWeights

N_TARGETS, N_RECORDS = 12, 80
OPTIONS = {"beta": 0.35, "init_keep_prob": 0.8, "init_weights": np.linspace(0.5, 2, N_RECORDS), "seed": 4}


@pytest.fixture
def problem():
    generator = np.random.default_rng(2)
    M = sp.random(N_TARGETS, N_RECORDS, density=0.3, format="csr", random_state=generator)
    return M, M @ generator.uniform(0.5, 1.5, N_RECORDS)


@pytest.mark.parametrize("name", ["__init__", "fit", "forward", "predict", "get_weights"])
def test_arguments_and_defaults(name):
    theirs = inspect.signature(getattr(Theirs, name)).parameters.values()
    ours = list(inspect.signature(getattr(Ours, name)).parameters.values())
    for k, parameter in enumerate(theirs):
        assert (ours[k].name, ours[k].default, ours[k].kind) == (parameter.name, parameter.default, parameter.kind)
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[k + 1 :])


def test_methods_and_attributes():
    theirs, ours = Theirs(N_RECORDS), Ours(N_RECORDS)
    missing = {name for name in dir(theirs) if not name.startswith("_cached")} - set(dir(ours))
    assert not missing
    for name in ("n_features", "beta", "gamma", "zeta", "device", "use_gates", "seed", "LOG_ALPHA_BOUND"):
        assert getattr(theirs, name) == getattr(ours, name)


def test_same_seed_same_start():
    assert torch.equal(Theirs(N_RECORDS, **OPTIONS).log_alpha, Ours(N_RECORDS, **OPTIONS).log_alpha)
    torch.testing.assert_close(Theirs(N_RECORDS, **OPTIONS).log_weight, Ours(N_RECORDS, **OPTIONS).log_weight)


def test_checkpoints_load_both_ways_and_give_the_same_numbers(problem):
    M, y = problem
    theirs = Theirs(N_RECORDS, **OPTIONS).fit(M, y, epochs=20, lr=0.1, loss_type="relative")
    ours = Ours(N_RECORDS, **OPTIONS)
    ours.load_state_dict(theirs.state_dict())
    back = Theirs(N_RECORDS, **OPTIONS)
    back.load_state_dict(ours.state_dict())
    for other in (ours, back):
        torch.testing.assert_close(other.predict(M), theirs.predict(M))
        torch.testing.assert_close(other.get_weights(deterministic=True), theirs.get_weights(deterministic=True))
        torch.testing.assert_close(other.get_l0_penalty(), theirs.get_l0_penalty())
        torch.testing.assert_close(other.get_l2_penalty(), theirs.get_l2_penalty())
        assert other.get_sparsity() == theirs.get_sparsity()
        expected, got = theirs.get_active_weights(), other.get_active_weights()
        assert got["count"] == expected["count"] and type(got["count"]) is type(expected["count"])
        assert torch.equal(got["indices"], expected["indices"]) and got["indices"].dtype == expected["indices"].dtype


@pytest.mark.parametrize("loss", ["mse", "relative"])
@pytest.mark.parametrize("groups", [False, True])
def test_dense_fits_agree(problem, loss, groups):
    """Without gates there is no noise: the same weights, epoch after epoch."""
    M, y = problem
    settings = {"lambda_l0": 1e-3, "lambda_l2": 1e-3, "lr": 0.05, "epochs": 40, "loss_type": loss}
    if groups:
        settings |= {"target_groups": np.arange(N_TARGETS) % 3, "group_multipliers": {0: 2.0, 2: 0.5}}
    theirs, ours = (Model(N_RECORDS, use_gates=False, **OPTIONS).fit(M, y, **settings) for Model in (Theirs, Ours))
    torch.testing.assert_close(ours.log_weight, theirs.log_weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.log_alpha, theirs.log_alpha, rtol=1e-3, atol=1e-3)


def test_printed_lines_agree(problem, capsys):
    """A program that reads the lines finds the same words in them."""
    M, y = problem
    lines = []
    for Model in (Theirs, Ours):
        settings = {"lambda_l0": 0.0, "lr": 0.05, "loss_type": "relative", "verbose": True, "verbose_freq": 10}
        Model(N_RECORDS, use_gates=False, **OPTIONS).fit(M, y, epochs=20, **settings)
        lines.append(capsys.readouterr().out.splitlines())
    assert lines[0] == lines[1]
