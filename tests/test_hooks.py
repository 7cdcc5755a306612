"""Subclasses that override what fit calls: code written for l0-python does."""

import numpy as np
import torch
from model_problem import FIT, N_RECORDS

from l0fast.calibration import SparseCalibrationWeights


def test_overridden_methods_are_honoured(problem):
    """Code written for l0-python may override what fit calls; the engine must not pass over it."""
    M, y = problem

    class Capped(SparseCalibrationWeights):
        def get_weights(self, deterministic=False):
            return super().get_weights(deterministic).clamp(max=0.9)

    class Scaled(SparseCalibrationWeights):
        def _convert_sparse_to_torch(self, M):
            return 2 * super()._convert_sparse_to_torch(M)

    class Free(SparseCalibrationWeights):
        def get_l0_penalty(self):
            return 0 * super().get_l0_penalty()

    options = {"beta": 0.35, "init_keep_prob": 0.99, "seed": 1}
    capped = Capped(N_RECORDS, **options).fit(M, y, epochs=50, **FIT)
    assert capped.predict(M).max() <= (0.9 * np.asarray(M.sum(axis=1)).max()) * (1 + 1e-5)
    scaled = Scaled(N_RECORDS, **options).fit(M, y, epochs=200, **FIT)
    torch.testing.assert_close(scaled.get_weights(True).mean().item(), 0.5, rtol=0.1, atol=0)
    free = Free(N_RECORDS, **options).fit(M, y, epochs=100, lambda_l0=10.0, lr=0.1, loss_type="relative")
    assert free.get_sparsity() < 0.1
    whole, chunks = (Capped(N_RECORDS, **options) for _ in range(2))
    whole.fit(M, y, epochs=10, **FIT)
    for _ in range(2):
        chunks.fit(M, y, epochs=5, resume=True, **FIT)
    assert torch.equal(whole.log_weight, chunks.log_weight)


def test_the_eager_path_agrees_with_the_engine(problem):
    """The same run through the methods and through the engine, without noise: the same losses."""
    M, y = problem

    class Eager(SparseCalibrationWeights):
        def get_l2_penalty(self):
            return super().get_l2_penalty()

    settings = {"lambda_l2": 1e-3, "epochs": 30, "lr": 0.05, "loss_type": "relative"}
    eager = Eager(N_RECORDS, use_gates=False, seed=1).fit(M, y, **settings)
    engine = SparseCalibrationWeights(N_RECORDS, use_gates=False, seed=1).fit(M, y, **settings)
    np.testing.assert_allclose(eager.history["loss"], engine.history["loss"], rtol=1e-4)
    torch.testing.assert_close(eager.log_weight, engine.log_weight, rtol=1e-4, atol=1e-4)
