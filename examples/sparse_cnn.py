"""A convolutional network with a gate on every weight, trained on batches too large for memory: four parts each.

    python examples/sparse_cnn.py

Prints the sparsity before and after training and the accuracy on unseen digits.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from l0fast import L0Conv2d, L0Linear, compute_l0_penalty, get_sparsity_stats


class SparseCNN(nn.Module):
    """Two gated convolutions and a gated linear layer, for images [batch, 1, 8, 8]."""

    def __init__(self, n_classes: int = 10):
        super().__init__()
        self.conv1 = L0Conv2d(1, 16, kernel_size=3, padding=1, init_sparsity=0.3)
        self.conv2 = L0Conv2d(16, 32, kernel_size=3, padding=1, init_sparsity=0.3)
        self.classify = L0Linear(32 * 2 * 2, n_classes, init_sparsity=0.3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.classify(x.flatten(1))


def total_sparsity(model: nn.Module) -> float:
    """Expected share of closed gates over all layers."""
    layers = get_sparsity_stats(model).values()
    return 1 - sum(s["active_params"] for s in layers) / sum(s["total_params"] for s in layers)


torch.manual_seed(0)
data = load_digits()
parts = train_test_split(data.images[:, None].astype("float32") / 16, data.target, random_state=0, stratify=data.target)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)
batches = DataLoader(TensorDataset(train_x, train_y), batch_size=32, shuffle=True, drop_last=True)

model = SparseCNN()
gates = [p for name, p in model.named_parameters() if name.endswith("qz_logits")]
others = [p for name, p in model.named_parameters() if not name.endswith("qz_logits")]
optimizer = torch.optim.Adam([{"params": others}, {"params": gates, "lr": 1e-1}], lr=1e-2)  # gates may move faster
price = 0.3 / len(train_x)
PARTS = 4  # 4 parts of 32 images make one step of 128
print(f"before: sparsity {total_sparsity(model):.1%}")

for _ in range(25):
    for k, (x, y) in enumerate(batches):
        # Every part draws its own gates. The penalty is divided like the loss, so that a step has it once.
        loss = F.cross_entropy(model(x), y) + price * compute_l0_penalty(model)
        (loss / PARTS).backward()
        if (k + 1) % PARTS == 0:
            optimizer.step()
            optimizer.zero_grad()

model.eval()
with torch.no_grad():
    accuracy = (model(test_x).argmax(1) == test_y).float().mean()
print(f"after: sparsity {total_sparsity(model):.1%}, accuracy {accuracy:.1%}")
