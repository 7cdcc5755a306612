"""From a trained gated network to a small file and back: prune, save, load, run.

    python examples/prune_save_load.py

Prints each layer's sparsity, the compression, the accuracy on unseen digits before and after, and the size of the file.
"""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from l0fast import SparseMLP, get_sparsity_stats, prune_model
from l0fast.pruning import materialize

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, digits, random_state=0, stratify=digits)
train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)

model = SparseMLP(64, 128, 10, temperature=2 / 3)
gates = [p for name, p in model.named_parameters() if name.endswith("qz_logits")]
others = [p for name, p in model.named_parameters() if not name.endswith("qz_logits")]
optimizer = torch.optim.Adam([{"params": others}, {"params": gates, "lr": 3e-2}], lr=3e-3)
for _ in range(40):
    for batch in torch.randperm(len(train_x)).split(64):
        loss = F.cross_entropy(model(train_x[batch]), train_y[batch]) + 0.3 / len(train_x) * model.get_l0_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: torch.nn.Module) -> float:
    return (model.eval()(test_x).argmax(1) == test_y).float().mean().item()


stats = get_sparsity_stats(model)
for name, layer in stats.items():
    print(f"{name}: {layer['sparsity']:.1%} sparse, {layer['active_params']:.0f} of {layer['total_params']} weights")
before = accuracy(model)

# Weights of gates that are open below 5 % become 0; ordinary layers then take the gated ones' places.
pruned = materialize(prune_model(model, threshold=0.05, inplace=False))
total = sum(p.numel() for p in pruned.parameters())
nonzero = sum(int(p.count_nonzero()) for p in pruned.parameters())
print(f"compression {total / nonzero:.1f}x: {nonzero:,} of {total:,} weights and biases are not 0")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "pruned.pt"
    weights = {key: value.to_sparse() for key, value in pruned.state_dict().items()}
    torch.save({"weights": weights, "sparsity_stats": stats}, path)
    torch.save(model.state_dict(), Path(folder) / "gated.pt")
    print(f"file {path.stat().st_size:,} bytes, of the gated model {(Path(folder) / 'gated.pt').stat().st_size:,}")
    saved = torch.load(path, weights_only=True)  # tensors and plain values only: nothing in the file can run

loaded = materialize(SparseMLP(64, 128, 10))  # the same shape, without gates
loaded.load_state_dict({key: value.to_dense() for key, value in saved["weights"].items()})
print(f"accuracy {before:.1%} before, {accuracy(loaded):.1%} loaded")
