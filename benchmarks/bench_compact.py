"""What compact saves: a gated network on 32 x 32 images with about half of its channels closed.

    python benchmarks/bench_compact.py [--batch 32] [--rounds 25] [--out benchmarks/results/compact.csv]

Three models that compute the same (checked before anything is timed) take turns: gated in evaluation, materialized,
compact. One row each: parameters, milliseconds per batch (median, p20, p80), largest difference from the gated model.
"""

import argparse
from pathlib import Path

import torch
from common import Summary, append_row, run_facts, significant, timed
from torch import nn

import l0fast as l0
from l0fast.pruning import compact, materialize

WIDTHS = (64, 64, 128, 128, 256, 256)
TOLERANCE = 1e-5


def network(closed: float, seed: int = 0) -> nn.Module:
    """Six gated 3 x 3 convolutions with batch norm and pooling, two gated linear layers. Nothing is at its default."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 3
    for place, width in enumerate(WIDTHS):
        layers += [l0.L0Conv2d(channels, width, 3, padding=1, structured=True), nn.BatchNorm2d(width), nn.ReLU()]
        if place % 2:
            layers.append(nn.MaxPool2d(2))
        channels = width
    model = nn.Sequential(
        *layers, nn.Flatten(), l0.L0Linear(channels * 16, 256, gate_dim=0), nn.ReLU(), nn.Linear(256, 10)
    )
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, l0.L0Conv2d | l0.L0Linear):
                logits = layer.gates.qz_logits
                logits.copy_(torch.where(torch.rand(logits.shape) < closed, -6.0, 6.0))
                layer.bias.normal_(std=0.1)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_var.uniform_(0.5, 2)
                layer.bias.normal_(std=0.1)
    return model


@torch.no_grad()
def measure(models: dict[str, nn.Module], x: torch.Tensor, rounds: int) -> dict[str, Summary]:
    """Seconds per batch; the models take turns, so that all see the same weather."""
    samples: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 2):
        for name, model in models.items():
            seconds = timed(lambda model=model: model(x))
            if turn >= 2:
                samples[name].append(seconds)
    return {name: Summary.of(those) for name, those in samples.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--closed", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    gated = network(options.closed).eval()
    x = torch.randn(options.batch, 3, 32, 32)
    small, report = compact(gated, x[:4])
    print(report)
    models = {"gated": gated, "materialized": materialize(gated), "compact": small}
    with torch.no_grad():
        expected = gated(x)
        differences = {name: (model(x) - expected).abs().max().item() for name, model in models.items()}
    scale = max(1.0, expected.abs().max().item())
    if max(differences.values()) > TOLERANCE * scale:
        raise SystemExit(f"results differ, nothing was timed: {differences}")
    times = measure(models, x, options.rounds)
    for name, summary in times.items():
        row = {
            **run_facts(),
            "threads": torch.get_num_threads(),
            "batch": options.batch,
            "closed_share": options.closed,
            "model": name,
            "parameters": sum(p.numel() for p in models[name].parameters()),
            "median_ms": significant(summary.median * 1e3),
            "p20_ms": significant(summary.p20 * 1e3),
            "p80_ms": significant(summary.p80 * 1e3),
            "ratio_to_compact": significant(summary.median / times["compact"].median),
            "max_difference": f"{differences[name]:.1e}",
            "largest_output": significant(expected.abs().max().item()),
        }
        print(", ".join(f"{key} {value}" for key, value in row.items() if key not in run_facts()))
        if options.out is not None:
            append_row(options.out, row)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
