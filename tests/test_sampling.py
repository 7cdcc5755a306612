"""Sampford's fixed-size samples: sizes, inclusion probabilities, and the design itself by enumeration."""

import itertools
import time

import numpy as np
import pytest
from model_problem import make, survey

from l0fast.calibration import sampling
from l0fast.calibration.budget import checked_budget, unsettle
from l0fast.calibration.sampling import inclusion_probabilities, sampford


@pytest.mark.parametrize("k", [1, 5, 37, 90, 99, 100])
def test_probabilities_sum_to_k_and_are_proportional(k):
    sizes = np.random.default_rng(k).lognormal(0, 1.5, 100)
    chances = inclusion_probabilities(sizes, k)
    assert chances.sum() == pytest.approx(k, rel=1e-12) and (chances > 0).all() and (chances <= 1).all()
    free = chances < 1
    if free.any():
        ratio = chances[free] / sizes[free]
        np.testing.assert_allclose(ratio, ratio[0])
        assert (sizes[~free] * ratio[0] >= 1 - 1e-9).all()


def test_zero_sizes_are_never_drawn():
    sizes = [0, 1, 0, 2, 3.0]
    assert inclusion_probabilities(sizes, 2).tolist() == pytest.approx([0, 1 / 3, 0, 2 / 3, 1])
    assert sampford(sizes, 3, seed=1)[0].tolist() == [1, 3, 4]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_frequencies_are_those_of_the_design(k, monkeypatch):
    """A chi-square over all samples of 6 units; a try kept with the wrong chance shows."""
    chances = inclusion_probabilities([1, 2, 3, 1.5, 2.5, 0.7], k)
    assert (chances < 1).all()
    design = {}
    for s in itertools.combinations(range(6), k):
        odds = np.array([chances[j] / (1 - chances[j]) for j in s])
        design[s] = sum(chances[i] * np.prod(np.delete(odds, place)) for place, i in enumerate(s))
    total, draws = sum(design.values()), 12_000
    for i in range(6):  # Sampford's theorem: the design has the probabilities asked for
        assert sum(w for s, w in design.items() if i in s) / total == pytest.approx(chances[i])
    coins = sampling._tilted(chances, max(k - 1, 1))
    monkeypatch.setattr(sampling, "_tilted", lambda *_: coins)  # the same every time, and most of a draw's cost
    counts, generator = dict.fromkeys(design, 0), np.random.default_rng(k)
    for _ in range(draws):
        counts[tuple(sorted(sampling._draw(chances, k, generator).tolist()))] += 1
    expected = {s: draws * weight / total for s, weight in design.items()}
    statistic = sum((counts[s] - x) ** 2 / x for s, x in expected.items())
    freedom = len(design) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_certain_units_are_always_there():
    sizes = np.array([1, 2, 3, 1.5, 2.5, 0.7, 40, 50])
    chances = inclusion_probabilities(sizes, 5)
    assert (chances[6:] == 1).all() and (chances[:6] < 1).all()
    counts = np.zeros(8)
    for seed in range(1500):
        drawn, returned = sampford(sizes, 5, seed=seed)
        assert len(np.unique(drawn)) == 5 and {6, 7} <= set(drawn.tolist())
        counts[drawn] += 1
    np.testing.assert_array_equal(returned, chances)
    assert (np.abs(counts / 1500 - chances) < 4.5 * np.sqrt(chances * (1 - chances) / 1500) + 1e-9).all()


def test_large_samples_take_no_time():
    gates = np.random.default_rng(0).beta(0.5, 0.5, 40_000)
    began = time.process_time()
    drawn, chances = sampford(gates, 15_000, seed=0)
    assert len(np.unique(drawn)) == 15_000 and time.process_time() - began < 20
    again, _ = sampford(gates, 15_000, seed=0)
    assert (drawn == again).all() and chances.sum() == pytest.approx(15_000)


@pytest.mark.parametrize(
    ("sizes", "k", "error", "message"),
    [
        ([1, 2, 0], 3, ValueError, r"k: expected 1 to 2 \(the positive sizes\), got 3"),
        ([1, 2], 0, ValueError, r"k: expected 1 to 2"),
        ([1, 2], 1.0, TypeError, r"k: expected an int, got float"),
        ([1, -2], 1, ValueError, r"sizes: expected non-negative values, got -2.0 at unit 1"),
        ([1, np.nan], 1, ValueError, r"sizes: expected finite values, got nan at unit 1"),
        ([[1, 2]], 1, ValueError, r"sizes: expected shape"),
    ],
)
def test_bad_input(sizes, k, error, message):
    with pytest.raises(error, match=message):
        sampford(sizes, k)


# -- a budget that is drawn --------------------------------------------------------------------------------------------

DRAWN = {"target_records": 80, "exact": "sampled", "epochs": 40, "lr": 0.1, "loss_type": "relative"}


def drawn(**options):
    """A short run, so that many gates are undecided."""
    M, y = survey()
    return make().fit(M, y, **{**DRAWN, **options})


@pytest.mark.filterwarnings("ignore:target_records")
def test_a_budget_may_be_drawn(tmp_path):
    M, y = survey()
    model = drawn()
    chances, used = model.inclusion_probabilities, model.get_weights(deterministic=True).detach().numpy() > 0
    assert used.sum() == 80 and chances.sum() == pytest.approx(80)
    assert 0 < ((chances > 0.01) & (chances < 0.99)).mean(), "or nothing is left to chance"
    most = make().fit(M, y, **{**DRAWN, "exact": True})
    assert most.inclusion_probabilities is None
    assert (used != (most.get_weights(deterministic=True).detach().numpy() > 0)).any()
    np.testing.assert_array_equal(used, drawn().get_weights(deterministic=True).detach().numpy() > 0)
    model.save_checkpoint(tmp_path / "run.safetensors")
    np.testing.assert_array_equal(make().load_checkpoint(tmp_path / "run.safetensors").inclusion_probabilities, chances)
    pieces = drawn(epochs=30).fit(M, y, **{**DRAWN, "epochs": 10}, resume=True)
    np.testing.assert_array_equal(pieces.log_alpha.detach(), model.log_alpha.detach())
    refitted = drawn(refit=True)
    np.testing.assert_array_equal(refitted.inclusion_probabilities, chances)
    assert ((refitted.get_weights(deterministic=True).detach().numpy() > 0) == used).all()


@pytest.mark.filterwarnings("ignore:target_records")
def test_draws_have_the_probabilities_that_are_returned():
    """One model, its end drawn many times with other seeds."""
    model = drawn()
    run, budget = model._run, checked_budget(model, 80, "sampled")
    chances, counts = model.inclusion_probabilities, np.zeros(model.n_features)
    for seed in range(400):
        unsettle(model, run)
        run.seed.fill_(seed)
        budget.settle(model, run)
        np.testing.assert_allclose(model.inclusion_probabilities, chances, atol=1e-12)
        counts += (model.get_deterministic_gates().detach() > 0).numpy()
    deviation = (counts / 400 - chances) / np.sqrt(np.maximum(chances * (1 - chances) / 400, 1e-9))
    assert np.abs(deviation[(chances > 0.05) & (chances < 0.95)]).max() < 4.5
    assert (counts[chances > 1 - 1e-9] == 400).all()


@pytest.mark.filterwarnings("ignore:target_records")
def test_gates_that_are_fixed_are_not_drawn():
    M, y = survey()
    keep = np.full(M.shape[1], 0.5)
    keep[:10], keep[10:40] = 1, 0
    model = make(init_keep_prob=keep).fit(M, y, **{**DRAWN, "target_records": 20})
    used = model.get_weights(deterministic=True).detach().numpy() > 0
    assert used[:10].all() and not used[10:40].any() and used.sum() == 20
    assert (model.inclusion_probabilities[:10] == 1).all() and (model.inclusion_probabilities[10:40] == 0).all()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"exact": "drawn"}, ValueError, "exact: expected True, False or 'sampled', got 'drawn'"),
        ({"exact": 1.0}, TypeError, "exact: expected True, False or 'sampled', got float"),
        ({"target_records": None}, ValueError, "exact: expected target_records with it, got None"),
        ({"mass": "conserve"}, ValueError, "mass: expected 'free' with exact='sampled'"),
    ],
)
def test_bad_draws(options, error, says):
    with pytest.raises(error, match=says):
        drawn(**options)
