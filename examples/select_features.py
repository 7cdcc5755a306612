"""Find the few of 30 measurements that tell benign from malignant tumours.

    python examples/select_features.py

Prints the chosen measurements, the most important first, and how well a logistic regression does with them alone, and
with all 30, on patients it has not seen.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

from l0fast import FeatureGate

torch.manual_seed(0)
data = load_breast_cancer()
names = [str(name) for name in data.feature_names]
parts = train_test_split(data.data, data.target, random_state=0, stratify=data.target)
train_x, test_x = (torch.tensor((part - parts[0].mean(0)) / parts[0].std(0)).float() for part in parts[:2])
train_y, test_y = (torch.tensor(part) for part in parts[2:])

# The gate multiplies each measurement; the classifier sees what is left. An open gate costs, so useless ones close.
gate = FeatureGate(n_features=len(names), max_features=10, temperature=0.5)
classifier = nn.Linear(len(names), 2)
optimizer = torch.optim.Adam(
    [{"params": gate.parameters(), "lr": 5e-2}, {"params": classifier.parameters(), "lr": 1e-2, "weight_decay": 1e-3}]
)
for _ in range(600):
    loss = F.cross_entropy(classifier(gate.apply_gates(train_x, dim=1)), train_y) + 0.01 * gate.get_penalty()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

gate.eval()  # from here on the same measurements are chosen each time
chosen_x, chosen = gate.select_features_with_names(train_x, names)
importance = gate.get_feature_importance()
for k in importance.topk(len(chosen)).indices:
    print(f"{importance[k]:7.1%}  {names[k]}")


def in_batches(x: torch.Tensor, size: int = 64) -> torch.Tensor:
    """The chosen columns of a table that is too large to be handled at once."""
    return torch.cat([gate.select_features(batch)[0] for batch in x.split(size)])


few = LogisticRegression().fit(chosen_x, train_y).score(in_batches(test_x), test_y)
everything = LogisticRegression().fit(train_x, train_y).score(test_x, test_y)
print(f"accuracy {few:.1%} with {len(chosen)} measurements, {everything:.1%} with all {len(names)}")
