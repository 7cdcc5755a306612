"""A small survey out of a large one: some tax units chosen by gates, others at random, and weights that fit.

    python examples/calibrate_households.py [--quick]

Of 40,000 real tax units about 4,000 are kept. Gates find those that matter most to 1,513 published totals, the random
ones keep the sample broad. Prints how many came each way and how far off the totals are, beside a sample of as many
chosen at random alone. In each sample the weights sum to the number of tax units in the country. One seed decides
everything: the choice comes out the same at every call, and torch's own generator is left as it was, both of which is
checked here. --quick trains a fifth as long.
"""

import argparse
from importlib.resources import files

import numpy as np
import torch
from scipy import sparse as sp

from l0fast import HybridGate, SparseCalibrationWeights

with np.load(files("l0fast") / "data" / "cps_tax_problem_40k.npz", allow_pickle=False) as data:
    M = sp.csr_matrix((data["data"], data["indices"], data["indptr"]), shape=tuple(data["shape"]))
    targets, design_weights = data["y"], data["w0"]
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="a fifth of the epochs")
epochs = 200 if parser.parse_args().quick else 1000
population = targets[0]  # us/tax_units: that row of M is all ones


class HouseholdCalibrator:
    """Chooses households with a HybridGate and finds weights for them that meet the targets."""

    def __init__(self, n_households: int, target_households: int, seed: int = 0):
        self.seed = seed
        self.selector = HybridGate(
            n_households, l0_fraction=0.25, random_fraction=0.75, target_items=target_households, temperature=0.25
        )

    def learn_selection(self, M, targets, design_weights, lambda_l0: float) -> None:
        """Trains gates and weights of all households together; the selector takes over the gates."""
        gates = self.selector.l0_gate.gates
        model = SparseCalibrationWeights(
            M.shape[1], beta=gates.temperature, init_keep_prob=0.999, init_weights=design_weights, seed=self.seed
        )
        model.fit(M, targets, lambda_l0=lambda_l0, lr=0.15, epochs=epochs, loss_type="relative")
        gates.load_state_dict({"qz_logits": model.log_alpha})
        self.selector.eval()

    def calibrate_weights(self, M, targets, design_weights):
        """Indices of the selected households, how each was selected ('l0', 'random'), and one weight for each."""
        _, indices, kind = self.selector.select(torch.from_numpy(design_weights), random_seed=self.seed)
        indices = indices.numpy()
        return indices, kind, fit_weights(M[:, indices], targets, design_weights[indices], self.seed)


def fit_weights(M, targets, design_weights, seed: int = 0) -> np.ndarray:
    """Positive weights near the design weights, for all records, that meet the targets and sum to the population."""
    start = design_weights * population / design_weights.sum()
    model = SparseCalibrationWeights(len(start), init_weights=start, use_gates=False, seed=seed)
    model.fit(M, targets, lambda_l0=0.0, lr=0.05, epochs=epochs, loss_type="relative")
    weights = model.get_weights(deterministic=True).detach().double().numpy()
    return weights * population / weights.sum()


def report(name: str, indices: np.ndarray, weights: np.ndarray) -> None:
    assert len(weights) == len(indices) and (weights > 0).all() and np.isclose(weights.sum(), population)
    error = np.abs(M[:, indices] @ weights / targets - 1)
    print(f"{name}: {len(weights):,} weights, mean {weights.mean():,.0f}, sum {weights.sum():,.0f}, ", end="")
    print(f"error {error.mean():.2%} on average, {np.mean(error < 0.1):.1%} of totals within 10%")


generator = torch.get_rng_state()
calibrator = HouseholdCalibrator(M.shape[1], target_households=4_000)
calibrator.learn_selection(M, targets, design_weights, lambda_l0=0.06)
indices, kind, weights = calibrator.calibrate_weights(M, targets, design_weights)
again = calibrator.calibrate_weights(M, targets, design_weights)
assert all(np.array_equal(*pair) for pair in zip((indices, kind, weights), again, strict=True)), "not reproducible"
assert torch.equal(torch.get_rng_state(), generator), "the global generator has changed"

print(
    f"{(kind == 'l0').sum():,} tax units by gates, {(kind == 'random').sum():,} at random; population {population:,.0f}"
)
report("gates and random", indices, weights)
for way in ("l0", "random"):
    print(f"  {way}: weights of {weights[kind == way].mean():,.0f} on average")

indices = np.sort(np.random.default_rng(0).choice(M.shape[1], len(indices), replace=False))
report("random alone", indices, fit_weights(M[:, indices], targets, design_weights[indices]))
