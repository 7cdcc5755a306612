"""The helpers themselves: a planted error must not pass."""

import pytest
import torch
from compare import assert_as_good_as_torch, away_from_kinks


@pytest.fixture
def results():
    truth = torch.linspace(0.1, 3, 1000, dtype=torch.float64).exp()
    plain = torch.linspace(0.1, 3, 1000).exp()
    return plain.clone(), plain, truth


def test_equal_passes(results):
    assert_as_good_as_torch(*results)


@pytest.mark.parametrize("planted", [1e-5, -1e-5, float("nan"), float("inf")])
def test_one_wrong_element_fails(results, planted):
    kernel, plain, truth = results
    kernel[500] *= 1 + planted
    with pytest.raises(AssertionError):
        assert_as_good_as_torch(kernel, plain, truth)


def test_wrong_dtype_or_shape_fails(results):
    kernel, plain, truth = results
    with pytest.raises(AssertionError):
        assert_as_good_as_torch(kernel.double(), plain, truth)
    with pytest.raises(AssertionError):
        assert_as_good_as_torch(kernel[:-1], plain, truth)


def test_band_excludes_only_the_kinks():
    near = torch.tensor([0.0, 5e-5, -5e-5, 1.0, 1.00005, 0.5, -1.0, 2.0, 0.001])
    assert away_from_kinks(near).tolist() == [False] * 5 + [True] * 4
