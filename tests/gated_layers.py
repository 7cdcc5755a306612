"""Every gated layer with the plain module of torch that it must equal once the weight is multiplied by the gates."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

import l0fast
from l0fast import HardConcrete, reference

SEED = torch.tensor([1234567890123456789])


class Case(NamedTuple):
    layer: type
    plain: type
    sizes: tuple
    shape: tuple  # of the input
    options: dict = {}  # noqa: RUF012 (never written to)
    plain_options: dict = {}  # noqa: RUF012

    def make(self, **placed) -> nn.Module:
        return scatter(self.layer(*self.sizes, **self.options, **placed))

    def input(self, dtype=torch.float32) -> Tensor:
        if self.plain is nn.Embedding:
            return torch.randint(0, self.sizes[0], self.shape)
        return torch.randn(self.shape).to(dtype)

    def reference(self, layer, x: Tensor, seed: Tensor | None) -> Tensor:
        """The plain module's output with weight * z, all of it differentiable by torch alone."""
        options = {k: v for k, v in self.options.items() if k not in OURS} | self.plain_options
        sizes = (self.sizes[0], *self.sizes) if self.layer is l0fast.L0DepthwiseConv2d else self.sizes
        plain = self.plain(*sizes, **options, dtype=layer.weight.dtype)
        parameters = {"weight": layer.weight * layer.spread(gates_of(layer, seed))}
        if layer.bias is not None:
            parameters["bias"] = layer.bias
        return functional_call(plain, parameters, (x,))

    def __str__(self):
        return f"{self.layer.__name__}{self.sizes}{self.options or ''}"


OURS = {"structured", "gate_dim", "eval_temperature", "temperature", "init_sparsity", "use_l2"}


def gates_of(layer, seed: Tensor | None) -> Tensor:
    """z in plain torch."""
    gates = layer.gates
    shape = {"temperature": gates.temperature, "gamma": gates.gamma, "zeta": gates.zeta}
    return reference.hard_concrete(gates.qz_logits, seed, eval_temperature=gates.eval_temperature, **shape)


def scatter(model: nn.Module) -> nn.Module:
    """Gates and biases all over their range, the same at each call."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("qz_logits", "bias")):
                p.copy_(torch.randn(p.shape, generator=generator) * (1.5 if "qz" in name else 0.5))
    return model


def fix_noise(monkeypatch, seed: Tensor = SEED) -> None:
    """Every draw has the same seed. On the class: a layer must not notice."""
    monkeypatch.setattr(HardConcrete, "_draw_seed", lambda self: seed)


L = l0fast
SMALL = [
    Case(L.L0Linear, nn.Linear, (6, 5), (3, 6)),
    Case(L.L0Linear, nn.Linear, (6, 5), (6,), {"bias": False}),
    Case(L.L0Linear, nn.Linear, (6, 5), (2, 3, 6), {"gate_dim": 0, "temperature": 0.2}),
    Case(L.L0Linear, nn.Linear, (6, 5), (0, 6), {"gate_dim": 1}),
    Case(L.L0Linear, nn.Linear, (6, 5), (3, 6), {"gate_dim": -1, "eval_temperature": False}),
    Case(L.L0Conv1d, nn.Conv1d, (4, 6, 3), (2, 4, 9), {"stride": 2, "padding": 1}),
    Case(L.L0Conv1d, nn.Conv1d, (4, 6, 3), (4, 9), {"structured": True, "padding_mode": "circular", "padding": 2}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, 3), (2, 4, 7, 8)),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, (3, 2)), (2, 4, 7, 8), {"structured": True, "bias": False, "dilation": (1, 2)}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, 3), (2, 4, 7, 8), {"structured": True, "gate_dim": 1, "stride": (2, 1)}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, 3), (2, 4, 7, 8), {"groups": 2, "padding": (1, 0)}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, 3), (2, 4, 7, 8), {"groups": 2, "structured": True, "gate_dim": 1}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, (4, 3)), (2, 4, 7, 8), {"padding": "same", "dilation": 2}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, (4, 3)), (2, 4, 9, 8), {"padding": "same", "padding_mode": "reflect"}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, 3), (4, 7, 8), {"padding": (2, 1), "padding_mode": "replicate"}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, 3), (2, 4, 7, 8), {"padding": "valid", "padding_mode": "circular"}),
    Case(L.L0Conv2d, nn.Conv2d, (4, 6, 3), (0, 4, 7, 8), {"padding": "valid"}),
    Case(L.L0Conv3d, nn.Conv3d, (2, 3, 2), (2, 2, 4, 5, 6), {"padding": 1, "padding_mode": "circular"}),
    Case(L.L0Conv3d, nn.Conv3d, (2, 3, (1, 2, 3)), (2, 2, 4, 5, 6), {"structured": True, "stride": (1, 2, 1)}),
    Case(L.L0ConvTranspose2d, nn.ConvTranspose2d, (4, 6, 3), (2, 4, 5, 6), {"stride": 2, "output_padding": 1}),
    Case(L.L0ConvTranspose2d, nn.ConvTranspose2d, (4, 6, 3), (2, 4, 5, 6), {"structured": True, "groups": 2}),
    Case(L.L0ConvTranspose2d, nn.ConvTranspose2d, (4, 6, 3), (2, 4, 5, 6), {"structured": True, "gate_dim": 0}),
    Case(L.L0DepthwiseConv2d, nn.Conv2d, (4, 3), (2, 4, 7, 8), {"padding": 1}, {"groups": 4}),
    Case(L.L0DepthwiseConv2d, nn.Conv2d, (4, (3, 1)), (4, 7, 8), {"stride": 2, "bias": False}, {"groups": 4}),
    Case(
        *(L.L0DepthwiseConv2d, nn.Conv2d, (4, 3), (2, 4, 7, 8)),
        {"dilation": 2, "padding_mode": "reflect", "padding": "same"},
        {"groups": 4},
    ),
    Case(L.L0Embedding, nn.Embedding, (9, 4), (3, 5)),
    Case(L.L0Embedding, nn.Embedding, (9, 4), (7,), {"padding_idx": 2, "gate_dim": 0}),
    Case(L.L0Embedding, nn.Embedding, (9, 4), (2, 0), {"padding_idx": -1, "gate_dim": 1}),
]
LARGE = [  # L0Linear's own node
    Case(L.L0Linear, nn.Linear, (512, 520), (3, 512)),
    Case(L.L0Linear, nn.Linear, (512, 520), (512,), {"bias": False}),
    Case(L.L0Linear, nn.Linear, (512, 520), (2, 3, 512), {"gate_dim": 0}),
    Case(L.L0Linear, nn.Linear, (512, 520), (0, 512), {"gate_dim": 1}),
]
ALL = SMALL + LARGE
