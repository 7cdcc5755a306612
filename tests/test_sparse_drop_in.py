"""Against l0-python 0.6.2 itself: same names and results, and right where it is silently wrong."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from linear_problem import FIT, N_FEATURES, N_SAMPLES, SUPPORT, r_squared, regression, without_noise
from scipy import sparse as sp

from l0fast.sparse import SparseL0Linear as Ours

warnings.filterwarnings("ignore", message="Sparse invariant checks", category=UserWarning)
peer = pytest.importorskip("l0.sparse", reason="l0-python is not installed: nothing to compare with")
Theirs = peer.SparseL0Linear


@pytest.mark.parametrize("name", ["__init__", "fit", "forward", "predict", "get_selected_features"])
def test_arguments_and_defaults(name):
    theirs = inspect.signature(getattr(Theirs, name)).parameters.values()
    ours = list(inspect.signature(getattr(Ours, name)).parameters.values())
    for k, parameter in enumerate(theirs):
        assert (ours[k].name, ours[k].default, ours[k].kind) == (parameter.name, parameter.default, parameter.kind)
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[k + 1 :])


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_methods_attributes_and_keys(fit_intercept):
    theirs, ours = (Model(N_FEATURES, fit_intercept) for Model in (Theirs, Ours))
    missing = {name for name in dir(theirs) if not name.startswith("_cached")} - set(dir(ours))
    assert not missing
    for name in ("n_features", "fit_intercept", "beta", "gamma", "zeta", "device", "seed", "LOG_ALPHA_BOUND"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert [p.shape for p in theirs.parameters()] == [p.shape for p in ours.parameters()]


@pytest.mark.parametrize("keep", [0.5, 0.8, 0.9, 0.001, 0.999, 0.3])
def test_same_seed_same_start(keep):
    models = [Model(N_FEATURES, init_keep_prob=keep, seed=4) for Model in (Theirs, Ours)]
    assert torch.equal(models[0].log_alpha, models[1].log_alpha)


def test_the_same_global_seed_gives_the_same_first_weights():
    X, y = regression()
    weights = []
    for Model in (Theirs, Ours):
        model = Model(N_FEATURES)
        torch.manual_seed(3)
        weights.append(model.fit(X, y, epochs=0).weight)
        assert model.bias.item() == pytest.approx(y.mean(), rel=1e-6)
    assert torch.equal(*weights)


def test_checkpoints_load_both_ways_and_give_the_same_numbers():
    X, y = regression()
    theirs = Theirs(N_FEATURES, seed=1).fit(X, y, epochs=50, lr=0.05)
    ours, back = Ours(N_FEATURES), Theirs(N_FEATURES)
    ours.load_state_dict(theirs.state_dict())
    back.load_state_dict(ours.state_dict())
    for other in (ours, back):
        torch.testing.assert_close(other.predict(X), theirs.predict(X))
        torch.testing.assert_close(other.forward(X, deterministic=True), theirs.forward(X, deterministic=True))
        torch.testing.assert_close(other.get_deterministic_gates(), theirs.get_deterministic_gates())
        torch.testing.assert_close(other.get_l0_penalty(), theirs.get_l0_penalty())
        assert other.get_sparsity() == theirs.get_sparsity()
        for threshold in (0.01, 0.5):
            expected, got = (m.get_selected_features(threshold) for m in (theirs, other))
            assert torch.equal(got, expected) and got.dtype == expected.dtype


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_fits_without_noise_agree(fit_intercept, capsys):
    """The same weights and lines, epoch after epoch."""
    X, y = regression()
    models, lines = [], []
    for Model in (Theirs, Ours):
        model = without_noise(Model(N_FEATURES, fit_intercept))
        torch.manual_seed(3)
        models.append(model.fit(X, y, lr=0.03, epochs=60, verbose=True, verbose_freq=20))
        lines.append(capsys.readouterr().out.splitlines())
    for a, b in zip(*(m.state_dict().values() for m in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert lines[0] == lines[1] and len(lines[1]) == 3


def test_fits_agree_on_support_and_fit():
    X, y = regression()
    torch.manual_seed(0)
    for Model in (Theirs, Ours):
        model = Model(N_FEATURES, seed=1).fit(X, y, **FIT)
        assert model.get_selected_features().tolist() == SUPPORT
        assert r_squared(model, X, y) > 0.999


# -- where l0-python is silently wrong -------------------------------------------------------------------------------


def test_another_matrix_of_the_same_shape_is_not_the_cached_one():
    """l0-python looks at shape and number of nonzeros only: it predicts the old matrix."""
    X, y = regression()
    other = sp.csr_matrix((-X.data, X.indices, X.indptr), X.shape)
    theirs = Theirs(N_FEATURES, fit_intercept=False, seed=1).fit(X, y, epochs=3)
    assert torch.equal(theirs.predict(other), theirs.predict(X))
    ours = Ours(N_FEATURES, fit_intercept=False, seed=1).fit(X, y, epochs=3)
    assert torch.equal(ours.predict(other), -ours.predict(X)) and ours.predict(X).any()
    ours.fit(other, y, epochs=3)
    X.data *= 2  # in place
    torch.testing.assert_close(ours.predict(X), -2 * ours.predict(other))


def test_sparse_arrays_are_matrices():
    X, _ = regression()
    with pytest.raises((TypeError, RuntimeError, AttributeError)):
        Theirs(N_FEATURES, seed=1).predict(sp.csr_array(X))
    assert torch.equal(Ours(N_FEATURES, seed=1).predict(sp.csr_array(X)), Ours(N_FEATURES, seed=1).predict(X))


def test_a_column_of_y_is_not_broadcast():
    """l0-python takes the mean of n x n differences, whose best fit is a constant."""
    X, y = regression()
    theirs = without_noise(Theirs(N_FEATURES, seed=1)).fit(X, y[:, None], lr=0.05, epochs=400)
    assert r_squared(theirs, X, y) < 0.5
    assert r_squared(without_noise(Ours(N_FEATURES, seed=1)).fit(X, y[:, None], lr=0.05, epochs=400), X, y) > 0.99


def test_nan_is_an_error():
    X, y = regression()
    y[3] = np.nan
    assert Theirs(N_FEATURES, seed=1).fit(X, y, epochs=2).weight.isnan().all()
    with pytest.raises(ValueError, match=r"y: expected finite values, got nan at row of X 3"):
        Ours(N_FEATURES, seed=1).fit(X, y, epochs=2)


def test_the_seed_governs_the_fit():
    X, y = regression()
    for Model, same in ((Theirs, False), (Ours, True)):
        weights = []
        for disturbance in (1, 2):
            torch.manual_seed(disturbance)
            weights.append(Model(N_FEATURES, seed=1).fit(X, y, epochs=3).weight)
        assert torch.equal(*weights) is same


def test_integer_tensors():
    X, y = regression()
    labels = torch.from_numpy(y > 0).long()
    with pytest.raises(RuntimeError, match="mean"):
        Theirs(N_FEATURES, seed=1).fit(X, labels, epochs=1)
    assert Ours(N_FEATURES, seed=1).fit(X, labels, epochs=1).predict(X).shape == (N_SAMPLES,)
