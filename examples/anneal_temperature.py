"""Let gates begin soft and end hard, so that the network in evaluation is the one that was trained.

    python examples/anneal_temperature.py

Trains the same network at a fixed temperature and at one that falls. Prints, for each, the share of gates between 0 and
1 in evaluation, the accuracy on unseen digits, and the accuracy when all open gates are rounded to 1.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from l0fast import HardConcrete, SparseMLP, TemperatureScheduler

EPOCHS = 30

images, digits = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, digits, random_state=0, stratify=digits)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)


def train(first: float, last: float) -> SparseMLP:
    torch.manual_seed(0)
    model = SparseMLP(64, 128, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = TemperatureScheduler(first, last, anneal_epochs=EPOCHS - 10, model=model)  # sets the first temperature
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(train_x)).split(64):
            loss = F.cross_entropy(model(train_x[batch]), train_y[batch]) + 0.3 / len(train_x) * model.get_l0_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()  # and the next, after each epoch
    return model.eval()


@torch.no_grad()
def accuracy(model: SparseMLP) -> float:
    return (model(test_x).argmax(1) == test_y).float().mean().item()


for first, last in ((1.0, 1.0), (1.0, 0.1)):
    model = train(first, last)
    gates = [module for module in model.modules() if isinstance(module, HardConcrete)]
    z = torch.cat([gate().flatten() for gate in gates])
    between = ((z > 0) & (z < 1)).float().mean()
    exact = accuracy(model)
    for gate in gates:
        gate.temperature = 1e-3  # so low that every gate is 0 or 1
    print(f"temperature {first} to {last}: {between:.1%} of gates between 0 and 1, {(z == 0).float().mean():.1%} at 0")
    print(f"  accuracy {exact:.1%}, with rounded gates {accuracy(model):.1%}")
