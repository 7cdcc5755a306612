"""Choose a few thousand of 40,000 tax units and weights for them that meet 1,513 published totals.

    python examples/calibrate_survey.py

The problem is the one bundled with l0fast: real tax units of the Current Population Survey (CC0).
"""

from importlib.resources import files

import numpy as np
from scipy import sparse as sp

from l0fast.calibration import SparseCalibrationWeights

with np.load(files("l0fast") / "data" / "cps_tax_problem_40k.npz", allow_pickle=False) as data:
    M = sp.csr_matrix((data["data"], data["indices"], data["indptr"]), shape=tuple(data["shape"]))
    targets, design_weights = data["y"], data["w0"]

model = SparseCalibrationWeights(
    n_features=M.shape[1],
    beta=0.35,
    init_keep_prob=0.999,
    init_weights=design_weights,
    log_weight_jitter_sd=0.05,
    seed=0,
)
model.fit(M, targets, lambda_l0=1e-2, lambda_l2=1e-12, lr=0.15, epochs=1000, loss_type="relative")

active = model.get_active_weights()
errors = np.abs(model.predict(M).numpy() - targets) / np.abs(targets)
print(f"{active['count']:,} of {M.shape[1]:,} records, mean relative error {errors.mean():.2%}")
