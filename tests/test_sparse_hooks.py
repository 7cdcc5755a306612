"""Subclasses of SparseL0Linear that override what fit and forward call: code written for l0-python does."""

import numpy as np
import torch
from linear_problem import FIT, N_FEATURES, regression, without_noise

from l0fast.sparse import SparseL0Linear


def test_overridden_methods_are_honoured():
    X, y = regression()

    class Scaled(SparseL0Linear):
        def _convert_sparse_to_torch(self, X):
            return 2 * super()._convert_sparse_to_torch(X)

    class Chosen(SparseL0Linear):
        def _sample_gates(self):
            return super()._sample_gates() * (torch.arange(N_FEATURES) < 30)

        def get_deterministic_gates(self):
            return super().get_deterministic_gates() * (torch.arange(N_FEATURES) < 30)

    class Bounded(SparseL0Linear):
        LOG_ALPHA_BOUND = 1.5

    plain, scaled = (
        without_noise(cls(N_FEATURES, seed=5)).fit(X, y, lr=0.03, epochs=700) for cls in (SparseL0Linear, Scaled)
    )
    torch.testing.assert_close(2 * scaled.get_coefficients(), plain.get_coefficients(), atol=0.01, rtol=0)
    torch.testing.assert_close(scaled.predict(X), plain.predict(X), atol=0.05, rtol=0)
    chosen = Chosen(N_FEATURES, seed=5).fit(X, y, **{**FIT, "epochs": 600})
    assert set(chosen.get_selected_features().tolist()) <= set(range(30))
    whole, chunks = (Chosen(N_FEATURES, seed=5) for _ in range(2))
    whole.fit(X, y, epochs=10)
    for _ in range(2):
        chunks.fit(X, y, epochs=5, resume=True)
    assert torch.equal(whole.weight, chunks.weight) and torch.equal(whole.bias, chunks.bias)
    assert without_noise(Bounded(N_FEATURES)).get_l0_penalty() < 0.99 * N_FEATURES


def test_the_eager_path_agrees_with_the_engine():
    X, y = regression()

    class Eager(SparseL0Linear):
        def get_l2_penalty(self):
            return super().get_l2_penalty()

    settings = {"lambda_l2": 1e-3, "epochs": 60, "lr": 0.05}
    eager, engine = (without_noise(cls(N_FEATURES, seed=1)).fit(X, y, **settings) for cls in (Eager, SparseL0Linear))
    np.testing.assert_allclose(eager.history["loss"], engine.history["loss"], rtol=1e-4)
    for a, b in zip(eager.state_dict().values(), engine.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
