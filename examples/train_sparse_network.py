"""Train a classifier of handwritten digits whose weights switch themselves off, on a GPU where there is one.

    python examples/train_sparse_network.py [cpu | cuda]

Prints the accuracy on images that the network has not seen, and the share of its weights that are exactly 0.
"""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from l0fast import L0Linear, compute_l0_penalty


class SparseClassifier(nn.Module):
    """Three gated layers. A gate that closes for good removes one weight."""

    def __init__(self, n_inputs: int, n_hidden: int, n_classes: int):
        super().__init__()
        self.fc1 = L0Linear(n_inputs, n_hidden, temperature=2 / 3)
        self.fc2 = L0Linear(n_hidden, n_hidden, temperature=2 / 3)
        self.fc3 = L0Linear(n_hidden, n_classes, temperature=2 / 3)

    def forward(self, x):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, digits, random_state=0, stratify=digits)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)
batches = DataLoader(TensorDataset(train_x, train_y), batch_size=64, shuffle=True)

model = SparseClassifier(64, 128, 10).to(device)
gates = [p for name, p in model.named_parameters() if name.endswith("qz_logits")]
others = [p for name, p in model.named_parameters() if not name.endswith("qz_logits")]
optimizer = torch.optim.Adam([{"params": others}, {"params": gates, "lr": 3e-2}], lr=3e-3)  # gates may move faster
price = 0.3 / len(train_x)  # lambda: what an open gate costs. Higher means sparser

for _ in range(40):
    for x, y in batches:
        loss = F.cross_entropy(model(x.to(device)), y.to(device)) + price * compute_l0_penalty(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

model.eval()  # gates without noise from here on
with torch.no_grad():
    right = model(test_x.to(device)).argmax(1).cpu() == test_y
    weights = torch.cat([layer.masked_weight().flatten() for layer in (model.fc1, model.fc2, model.fc3)])
print(
    f"{device}: accuracy {right.float().mean():.1%}, {(weights == 0).float().mean():.1%} of {len(weights):,} weights 0"
)
