"""L0 and L2 together: few weights, and none of them large. Diagnoses breast cancer from 30 measurements.

    python examples/l0l2.py

Prints, with and without the L2 penalty, the accuracy on unseen patients, the share of weights that are 0 and the
largest weight.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

from l0fast import L0Linear, TemperatureScheduler, compute_l0l2_penalty, update_temperatures

measurements, benign = load_breast_cancer(return_X_y=True)
parts = train_test_split(measurements, benign, random_state=0, stratify=benign)
train_x, test_x = ((part - parts[0].mean(0)) / parts[0].std(0) for part in parts[:2])
train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in (train_x, test_x))
train_y, test_y = (torch.tensor(part) for part in parts[2:])


class SparseModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = L0Linear(30, 32, init_sparsity=0.5)
        self.fc2 = L0Linear(32, 2, init_sparsity=0.5)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


def train(l0_lambda: float, l2_lambda: float) -> SparseModel:
    torch.manual_seed(0)
    model = SparseModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = TemperatureScheduler(initial_temp=1.0, final_temp=0.2, anneal_epochs=200)
    for epoch in range(300):
        update_temperatures(model, schedule.get_temperature(epoch))
        loss = F.cross_entropy(model(train_x), train_y) + compute_l0l2_penalty(model, l0_lambda, l2_lambda)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


for l2_lambda in (0.0, 1e-4):
    model = train(l0_lambda=1e-3, l2_lambda=l2_lambda)
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean()
        weights = torch.cat([layer.masked_weight().flatten() for layer in (model.fc1, model.fc2)])
    print(
        f"l2_lambda {l2_lambda}: accuracy {accuracy:.1%}, {(weights == 0).float().mean():.1%} of weights 0, "
        f"largest {weights.abs().max():.2f}"
    )
