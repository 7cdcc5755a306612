"""The modules that the wrapper is tried on, and the same in plain torch."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from l0fast import L0Regularizer, reference
from l0fast.wrap import base

SEED = torch.tensor([987654321987654321])


class ResidualBlock(nn.Module):
    """With group normalisation, or batch normalisation."""

    def __init__(self, channels: int = 4, norm=lambda channels: nn.GroupNorm(2, channels)):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = norm(channels), norm(channels)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class Tied(nn.Module):
    """One matrix embeds the words and scores them."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 5), nn.Linear(5, 7)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(torch.tanh(self.embedding(x)))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def transformer():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


MODELS = {
    "mlp": (mlp, (4, 6)),
    "resnet": (ResidualBlock, (3, 4, 5, 5)),
    "resnet-batchnorm": (lambda: ResidualBlock(norm=nn.BatchNorm2d), (3, 4, 5, 5)),
    "transformer": (transformer, (3, 5, 8)),
    "lstm": (lambda: nn.LSTM(5, 6, num_layers=2, batch_first=True), (3, 4, 5)),
}


def make(kind: str) -> tuple[nn.Module, Tensor]:
    """A module and an input, in float64."""
    build, shape = MODELS[kind]
    return build().double(), torch.randn(shape, dtype=torch.float64)


def first(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def scatter(wrapped: L0Regularizer) -> L0Regularizer:
    """Gates all over their range, the same at each call."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in wrapped.log_alpha.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 1.5)
    return wrapped


def fix_noise(monkeypatch, seed: Tensor = SEED) -> None:
    monkeypatch.setattr(base, "_draw_seed", lambda device: seed)


def gates_in_torch(wrapped: L0Regularizer, seed: Tensor | None) -> dict[str, Tensor]:
    """z of a wrapper with a gate per element, from the reference: one draw over all gates, in order."""
    named = dict(wrapped.log_alpha.named_parameters())
    flat = torch.cat([p.reshape(-1) for p in named.values()])
    z = reference.hard_concrete(
        flat, seed, temperature=wrapped.temperature, gamma=wrapped.limit_a, zeta=wrapped.limit_b
    )
    parts = z.split([p.numel() for p in named.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}


def output_in_torch(wrapped: L0Regularizer, x: Tensor, seed: Tensor | None) -> Tensor:
    masked = {name: wrapped.module.get_parameter(name) * z for name, z in gates_in_torch(wrapped, seed).items()}
    return first(functional_call(wrapped.module, masked, (x,)))


def penalty_in_torch(wrapped: L0Regularizer, lam: float, decay: float) -> Tensor:
    """sum p (decay w^2 / 2 + lam) with a gate per element."""
    shape = {"temperature": wrapped.temperature, "gamma": wrapped.limit_a, "zeta": wrapped.limit_b}
    terms = []
    for name, log_alpha in wrapped.log_alpha.named_parameters():
        p = reference.active_probability(log_alpha, **shape)
        terms.append((p * (decay / 2 * wrapped.module.get_parameter(name) ** 2 + lam)).sum())
    return torch.stack(terms).sum()


def gradients(loss: Tensor, wrapped: L0Regularizer) -> dict[str, Tensor]:
    parameters = dict(wrapped.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
