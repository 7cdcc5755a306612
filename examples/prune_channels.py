"""Close whole channels of a convolutional network and take them out: what is left is ordinary, small and as accurate.

    python examples/prune_channels.py

Prints the open channels of each layer, the accuracy on unseen digits before and after the closed ones are taken out,
and the number of parameters.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from l0fast import L0Conv2d, compute_l0_penalty
from l0fast.pruning import compact


class StructuredCNN(nn.Module):
    """Convolutions with one gate for each output channel, for images [batch, 1, 8, 8]."""

    def __init__(self):
        super().__init__()
        self.conv1 = L0Conv2d(1, 32, kernel_size=3, structured=True, init_sparsity=0.2)
        self.conv2 = L0Conv2d(32, 64, kernel_size=3, structured=True, init_sparsity=0.2)
        self.classify = nn.Linear(64 * 2 * 2, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.classify(x.flatten(1))

    def active_channels(self) -> dict[str, int]:
        """Of each gated layer, how many channels are not exactly closed in evaluation."""
        convs = {name: m for name, m in self.named_modules() if isinstance(m, L0Conv2d)}
        return {name: int((conv.channel_gates() != 0).sum()) for name, conv in convs.items()}


torch.manual_seed(0)
data = load_digits()
parts = train_test_split(data.images[:, None].astype("float32") / 16, data.target, random_state=0, stratify=data.target)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)

model = StructuredCNN()
gates = [p for name, p in model.named_parameters() if name.endswith("qz_logits")]
others = [p for name, p in model.named_parameters() if not name.endswith("qz_logits")]
optimizer = torch.optim.Adam([{"params": others}, {"params": gates, "lr": 5e-2}], lr=5e-3)
for _ in range(25):
    for batch in torch.randperm(len(train_x)).split(64):
        loss = F.cross_entropy(model(train_x[batch]), train_y[batch]) + 0.02 * compute_l0_penalty(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    return (model(test_x).argmax(1) == test_y).float().mean().item()


model.eval()
print("open channels:", ", ".join(f"{name} {count}" for name, count in model.active_channels().items()))
print(f"accuracy {accuracy(model):.1%}")

small, report = compact(model, example_input=train_x[:8])
print(f"compact: {type(small.conv1).__name__} layers, accuracy {accuracy(small):.1%}")
print(report)
