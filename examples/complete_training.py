"""Everything in one training: L0 and L2 penalties, gates that harden, a record of each step, pruning at the end.

    python examples/complete_training.py

Prints every tenth epoch's temperature and each layer's sparsity, then what the tracker recorded, and the pruned
network's accuracy on unseen digits and its number of weights.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

from l0fast import (
    PenaltyTracker,
    SparseMLP,
    TemperatureScheduler,
    get_active_parameter_count,
    prune_model,
    update_temperatures,
)

EPOCHS = 40

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, digits, random_state=0, stratify=digits)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)
batches = DataLoader(TensorDataset(train_x, train_y), batch_size=64, shuffle=True)

model = SparseMLP(64, 128, 10, use_l2=True)
gates = [p for name, p in model.named_parameters() if name.endswith("qz_logits")]
others = [p for name, p in model.named_parameters() if not name.endswith("qz_logits")]
optimizer = torch.optim.Adam([{"params": others}, {"params": gates, "lr": 3e-2}], lr=3e-3)  # gates may move faster
schedule = TemperatureScheduler(initial_temp=1.0, final_temp=0.3, anneal_epochs=30)
tracker = PenaltyTracker()
l0_price, l2_price = 0.2 / len(train_x), 0.01 / len(train_x)

for epoch in range(EPOCHS):
    temperature = schedule.get_temperature(epoch)
    update_temperatures(model, temperature)
    for x, y in batches:
        task = F.cross_entropy(model(x), y)
        l0, l2 = model.get_l0_loss(), model.get_l2_loss()
        optimizer.zero_grad()
        (task + l0_price * l0 + l2_price * l2).backward()
        optimizer.step()
        tracker.log("task loss", task.item())
        tracker.log("open gates", l0.item())
    if (epoch + 1) % 10 == 0:
        layers = [f"{name} {s['sparsity']:.1%}" for name, s in model.get_sparsity_stats().items()]
        print(f"epoch {epoch + 1}: temperature {temperature:.2f}, sparsity {', '.join(layers)}")

for name in ("task loss", "open gates"):
    first, stats = tracker.get_history(name)[0], tracker.get_stats(name)
    print(f"{name}: {first:,.2f} at first, {stats['mean']:,.2f} on average, {stats['last']:,.2f} at last")

pruned = prune_model(model, threshold=0.05)  # evaluation mode; weights of gates that are open below 5 % become 0
with torch.no_grad():
    accuracy = (pruned(test_x).argmax(1) == test_y).float().mean()
total = sum(layer.weight.numel() for layer in (pruned.fc1, pruned.fc2, pruned.fc3))
print(f"pruned: accuracy {accuracy:.1%} with {get_active_parameter_count(pruned):,} of {total:,} weights")
