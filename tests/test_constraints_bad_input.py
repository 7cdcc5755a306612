"""Bounds and mass that cannot be: refused by name and with the numbers, before anything has changed."""

import numpy as np
import pytest
import torch
from model_problem import N_RECORDS, make, survey

from l0fast.calibration import SparseCalibrationWeights


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ({}, dict(mass="same"), ValueError, r"mass: expected one of free, conserve, got 'same'"),
        ({}, dict(bounds=3), TypeError, r"bounds: expected a pair \(low, high\), got int"),
        ({}, dict(bounds=(0, np.ones(3))), ValueError, r"bounds: high: expected shape \(400,\).* got \(3,\)"),
        ({}, dict(bounds=(0, "x")), TypeError, r"bounds: high: expected numbers, got str"),
        ({}, dict(bounds=(np.nan, 1)), ValueError, r"bounds: low: expected finite values, got nan at record 0"),
        ({}, dict(bounds=(-1, 1)), ValueError, r"bounds: expected a low of at least 0, got -1 at record 0"),
        ({}, dict(bounds=(0, 0)), ValueError, r"bounds: expected a high above 0, got 0 at record 0"),
        (
            {},
            dict(bounds=(0, 2), min_weight=3),
            ValueError,
            r"bounds: expected low <= high, got a smallest weight of 3 ",
        ),
        ({}, dict(bounds=(0.3, 0.3)), ValueError, r"bounds: expected room for a float32 weight .* got 0.3 to 0.3 at"),
        ({}, dict(min_weight=-1), ValueError, r"min_weight: expected a finite number of at least 0, got -1"),
        ({}, dict(max_weight_ratio=0), ValueError, r"max_weight_ratio: expected a finite number above 0, got 0"),
        ({}, dict(max_weight_ratio=True), TypeError, r"max_weight_ratio: expected a number, got bool"),
        (
            dict(init_weights=np.arange(400) - 0.0),
            dict(max_weight_ratio=5),
            ValueError,
            r"max_weight_ratio: expected positive initial weights, got 0 at record 0",
        ),
        (dict(init_weights=0.0), dict(mass="conserve"), ValueError, r"mass: expected initial weights .* got 0"),
        ({}, dict(anchor=0), ValueError, r"anchor: expected positive numbers, got 0 at record 0"),
        ({}, dict(anchor="mean"), ValueError, r'anchor: expected "initial" or positive numbers, got \'mean\''),
        (
            dict(beta=20.0),
            dict(min_weight=1),
            ValueError,
            r"min_weight: expected gates that can be fully open, got beta",
        ),
        (
            {},
            dict(mass="conserve", bounds=(0, 0.5)),
            ValueError,
            r"mass: expected 400 within reach, got at most 200 from 400 records",
        ),
        (
            {},
            dict(mass="conserve", max_weight_ratio=4, target_records=99),
            ValueError,
            r"mass: expected 400 within reach, got at most 396 from any 99 records",
        ),
        (
            dict(init_keep_prob=np.where(np.arange(400) < 100, 0.0, 0.5)),
            dict(mass="conserve", max_weight_ratio=1.25),
            ValueError,
            r"mass: expected 400 within reach, got at most 375 from 300 records",
        ),
        (
            dict(use_gates=False),
            dict(mass="conserve", min_weight=2),
            ValueError,
            r"mass: expected 400 within reach, got at least 800 from the 400 records that are always in use",
        ),
        (
            {},
            dict(mass="conserve", min_weight=2, target_records=300),
            ValueError,
            r"mass: expected 400 within reach, got at least 600 from any 300 records",
        ),
    ],
)
def test_refused_by_name_before_anything_changes(model, options, error, message):
    M, y = survey()
    model = make(**{"log_weight_jitter_sd": 0.1, **model})
    before = model.log_weight.clone(), model.log_alpha.clone()
    with pytest.raises(error, match=message):
        model.fit(M, y, **options)
    assert torch.equal(before[0], model.log_weight) and torch.equal(before[1], model.log_alpha)
    assert model.epoch == 0


def test_overridden_methods_are_refused():
    class Own(SparseCalibrationWeights):
        def get_weights(self, deterministic=False):
            return super().get_weights(deterministic)

    with pytest.raises(ValueError, match=r"mass: expected no overridden methods, got those of Own"):
        Own(N_RECORDS).fit(*survey(), mass="conserve")
