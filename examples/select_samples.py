"""Active learning: which 100 of 1,247 unlabelled images should a person label next?

    python examples/select_samples.py

A network that has seen 100 labels is unsure of some images. Gates, one for each image, learn to open where it is least
sure, and a price keeps about 100 of them open. Prints the accuracy before, after labelling those, and after labelling
as many at random.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from l0fast import SampleGate, SparseMLP


class ActiveLearner:
    """A network that chooses what it wants to be taught."""

    def __init__(self, n_select: int):
        self.n_select = n_select
        self.model = SparseMLP(64, 128, 10, init_sparsity=0.3)

    def learn(self, x, y, steps: int = 200) -> None:
        self.model.train()
        optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        for _ in range(steps):
            loss = F.cross_entropy(self.model(x), y) + 1e-5 * self.model.get_l0_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def uncertainty(self, x) -> torch.Tensor:
        """Entropy of the predicted digits [n], in nats."""
        log_p = F.log_softmax(self.model.eval()(x), dim=1)
        return -(log_p.exp() * log_p).sum(1)

    def select_samples(self, pool) -> torch.Tensor:
        """Indices of the images whose gates stay open."""
        entropy = self.uncertainty(pool)
        gate = SampleGate(n_samples=len(pool), target_samples=self.n_select, temperature=0.3)
        optimizer = torch.optim.Adam(gate.parameters(), lr=5e-2)
        price = 0.0  # of an open gate: it rises while too many are open and falls while too few are
        for _ in range(600):
            loss = price * gate.get_penalty() - (gate.get_gates() * entropy).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            price = max(0.0, price + 1e-2 * (gate.get_penalty().item() / self.n_select - 1))
        gate.eval()
        _, entropies, indices = gate.select_weighted_samples(pool, entropy)
        print(f"chose {len(indices)} of {len(pool)}: mean entropy {entropies.mean():.2f}, of all {entropy.mean():.2f}")
        return indices

    @torch.no_grad()
    def accuracy(self, x, y) -> float:
        return (self.model.eval()(x).argmax(1) == y).float().mean().item()


torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, digits, random_state=0, stratify=digits)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)
labelled, pool = torch.arange(100), torch.arange(100, len(train_x))

learner = ActiveLearner(n_select=100)
learner.learn(train_x[labelled], train_y[labelled])
print(f"accuracy {learner.accuracy(test_x, test_y):.1%} with {len(labelled)} labels")

chosen = pool[learner.select_samples(train_x[pool])]
at_random = pool[torch.randperm(len(pool))[: len(chosen)]]
for name, extra in (("chosen", chosen), ("random", at_random)):
    learner = ActiveLearner(n_select=100)
    taught = torch.cat([labelled, extra])
    learner.learn(train_x[taught], train_y[taught])
    print(f"accuracy {learner.accuracy(test_x, test_y):.1%} with {len(extra)} {name} labels more")
