import pytest
import torch

from l0fast import FeatureGate, HybridGate, L0Gate, SampleGate


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L0Gate(0), ValueError, r"size: expected at least 1, got 0"),
        (lambda: L0Gate(2.5), TypeError, r"size: expected an int, got float"),
        (lambda: L0Gate(3, temperature=0), ValueError, r"temperature: expected a positive number, got 0"),
        (lambda: L0Gate(3, init_mean=1.5), ValueError, r"init_mean: expected a probability in \[0, 1\], got 1.5"),
        (lambda: SampleGate(0, 0), ValueError, r"n_samples: expected at least 1"),
        (lambda: SampleGate(10, 11), ValueError, r"target_samples: expected 0 to n_samples = 10, got 11"),
        (lambda: SampleGate(10, -1), ValueError, r"target_samples: .*got -1"),
        (lambda: SampleGate(10, "5"), TypeError, r"target_samples: expected a number, got str"),
        (lambda: FeatureGate(-3, 1), ValueError, r"n_features: expected at least 1, got -3"),
        (lambda: FeatureGate(3, -1), ValueError, r"max_features: expected at least 0, got -1"),
        (lambda: FeatureGate(3, float("nan")), ValueError, r"max_features: .*got nan"),
        (lambda: HybridGate(0), ValueError, r"n_items: expected at least 1, got 0"),
        (lambda: HybridGate(10, 0.5, 0.6), ValueError, r"expected at most 1, got 0.5 \+ 0.6"),
        (lambda: HybridGate(10, -0.1, 0.5), ValueError, r"l0_fraction: expected a probability in \[0, 1\], got -0.1"),
        (lambda: HybridGate(10, 0.1, -0.5), ValueError, r"random_fraction: .*got -0.5"),
        (lambda: HybridGate(10, target_items=11), ValueError, r"target_items: expected 0 to n_items = 10, got 11"),
        (lambda: HybridGate(10, target_items=-2), ValueError, r"target_items: .*got -2"),
    ],
)
def test_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "dim", "error", "message"),
    [
        (torch.tensor(1.0), 0, ValueError, r"x: expected 4 items along a dimension, got a tensor without dimensions"),
        (torch.zeros(4, 2), 2, ValueError, r"dim: expected a dimension of x, from -2 to 1, got 2"),
        (torch.zeros(4, 2), -3, ValueError, r"dim: .*got -3"),
        (torch.zeros(4, 2), 0.0, TypeError, r"dim: expected an int, got 0.0"),
        (torch.zeros(4, 2), 1, ValueError, r"x: expected 4 items along dimension 1, got shape \[4, 2\]"),
        (torch.zeros(1, 2), 0, ValueError, r"x: expected 4 items along dimension 0, got shape \[1, 2\]"),
        ([0.0] * 4, 0, TypeError, r"x: expected a torch.Tensor, got list"),
        (torch.zeros(4, device="meta"), 0, ValueError, r"x: expected it on cpu as the gates are, got meta"),
    ],
)
def test_apply_gates(x, dim, error, message):
    with pytest.raises(error, match=message):
        L0Gate(4).apply_gates(x, dim)


def test_one_gate_does_not_spread_over_many_items():
    with pytest.raises(ValueError, match=r"x: expected 1 items along dimension 0, got shape \[3\]"):
        L0Gate(1).apply_gates(torch.zeros(3))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold(threshold):
    with pytest.raises(ValueError, match=r"threshold: expected a probability in \[0, 1\]"):
        L0Gate(4).get_active_indices(threshold)


def test_data_of_another_size_or_device():
    for method in (SampleGate(4, 2).select_samples, FeatureGate(4, 2).select_features, HybridGate(4).select):
        for size in (3, 5):
            with pytest.raises(ValueError, match=rf"data: expected 4 items along dimension -?\d, got shape \[{size}\]"):
                method(torch.zeros(size))
        with pytest.raises(ValueError, match=r"data: expected it on cpu as the gates are, got meta"):
            method(torch.zeros(4, device="meta"))
        with pytest.raises(TypeError, match=r"data: expected a torch.Tensor, got NoneType"):
            method(None)


def test_weights():
    select = SampleGate(3, 2).select_weighted_samples
    with pytest.raises(ValueError, match=r"weights: expected shape \[3\], got \[3, 1\]"):
        select(torch.zeros(3), torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"weights: expected 3 items along dimension 0, got shape \[1\]"):
        select(torch.zeros(3), torch.ones(1))
    with pytest.raises(ValueError, match=r"weights: expected numbers, got NaN at 1"):
        select(torch.zeros(3), torch.tensor([1.0, float("nan"), 2.0]))


def test_feature_names():
    select = FeatureGate(3, 2).select_features_with_names
    with pytest.raises(ValueError, match=r"feature_names: expected 3 names, got 2"):
        select(torch.zeros(2, 3), ["a", "b"])
    with pytest.raises(TypeError, match=r"feature_names: expected a list of names, got the string 'abc'"):
        select(torch.zeros(2, 3), "abc")


@pytest.mark.parametrize(
    ("seed", "error"), [(1.5, TypeError), (True, TypeError), (2**64, ValueError), (-(2**63) - 1, ValueError)]
)
def test_random_seed(seed, error):
    with pytest.raises(error, match=r"random_seed: expected an int"):
        HybridGate(4).select(torch.zeros(4), random_seed=seed)
