"""Wrap an ordinary transformer so that its weights, and whole attention heads, can switch themselves off.

    python examples/wrap_transformer.py

A small transformer reads handwritten digits row by row. Its own code knows nothing of gates: L0Regularizer multiplies
its weights by them, leaves out norms and biases, and gives each attention head one gate. Prints the weights that are
expected open every twentieth epoch, then the accuracy on unseen images, the share of weights that are 0 in the plain
module that is left, and its heads in use.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from l0fast import L0Regularizer

EPOCHS, WIDTH, HEADS = 60, 32, 4


class Reader(nn.Module):
    """Eight rows of eight pixels are eight tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.place = nn.Parameter(0.1 * torch.randn(8, WIDTH))
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images):
        tokens = self.embed(images.unflatten(1, (8, 8))) + self.place
        return self.head(self.layer(tokens).mean(1))


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return (model.eval()(x).argmax(1) == y).float().mean().item()


torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, digits, random_state=0, stratify=digits)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)
batches = DataLoader(TensorDataset(train_x, train_y), batch_size=64, shuffle=True)

model = L0Regularizer(
    Reader(),
    lam=0.3 / len(train_x),
    exclude=(nn.LayerNorm, "*bias", "place"),
    granularity={"*.out_proj.weight": ("head", HEADS, 1)},  # what a head adds: its columns of the output projection
    init={"head.weight": "magnitude"},  # large weights start with better odds of staying
)
optimizer = torch.optim.Adam(
    [{"params": model.module.parameters()}, {"params": model.log_alpha.parameters(), "lr": 3e-2}], lr=3e-3
)

for epoch in range(EPOCHS):
    model.train()
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + model.regularization()
        loss.backward()
        optimizer.step()
        model.constrain_parameters()
    if epoch % 20 == 19:
        print(f"epoch {epoch + 1}: {model.count_l0():.0f} of {model.gated_count()} weights expected open")

plain = model.materialize()  # a Reader again, without gates
weights = [plain.get_parameter(name) for name, _ in model.log_alpha.named_parameters()]
zeros = sum((w == 0).sum().item() for w in weights) / sum(w.numel() for w in weights)
heads = plain.layer.self_attn.out_proj.weight.unflatten(1, (HEADS, -1)).abs().sum((0, 2)) > 0
print(f"accuracy {accuracy(model, test_x, test_y):.1%}, of the plain module {accuracy(plain, test_x, test_y):.1%}")
print(f"{zeros:.1%} of {model.gated_count()} weights are 0, {heads.sum().item()} of {HEADS} heads in use")
