"""The Hard Concrete distribution as a module: the class of l0-python, on fused kernels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import _linked, ops, reference
from . import constants as c
from ._checks import as_flag, as_floating, as_probability, as_size, positive
from ._gate_arguments import Default, merged, named_sizes, split_positions
from ._modules import hooked, unchanged

INIT_MARGIN = 1e-6
"""An init_mean of exactly 0 or 1 starts this far from the end: its logit is finite and can be trained."""


class HardConcrete(nn.Module):
    r"""Hard Concrete gates of any shape, with one parameter ``qz_logits`` (log alpha) per gate.

    ``s = sigmoid((log u - log(1 - u) + log_alpha) / temperature)`` in training and ``sigmoid(log_alpha / temperature)``
    in evaluation; ``z = clamp(s (zeta - gamma) + gamma, 0, 1)`` with ``gamma = -stretch`` and ``zeta = 1 + stretch``.

    Args:
        *gate_size: shape of the gates: ``HardConcrete(64)``, ``HardConcrete(256, 128)``, any rank, or one sequence.
            Numbers that are not ints and follow it are temperature, stretch and init_mean, l0-python's positions.
        temperature: beta, above 0. May be assigned later (``gates.temperature = 0.1``).
        stretch: above 0.
        init_mean: initial ``sigmoid(qz_logits)`` in [0, 1]; 0 and 1 start 1e-6 from the end; None starts at 1/2.
        input_dim, output_dim: l0-python's names for the first two sizes.
        eval_temperature: False gives the original authors' test-time gate, ``sigmoid(log_alpha)``.
        device, dtype: of ``qz_logits``.

    Attributes:
        qz_logits: parameter of shape ``gate_size``, the only entry of the state_dict (as in l0-python).
        gate_size, temperature, stretch, gamma, zeta, init_mean, eval_temperature: as above.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), equations 10 to 12; DESIGN 3.
    """

    LOG_ALPHA_BOUND: float = c.LOG_ALPHA_BOUND
    _UNIFORM_EPS: float = c.UNIFORM_EPS

    def __init__(
        self,
        *gate_size: int,
        temperature: float = Default(0.5),
        stretch: float = Default(0.1),
        init_mean: float | None = Default(0.5),
        input_dim: int | None = None,
        output_dim: int | None = None,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        sizes, scalars = split_positions(gate_size)
        temperature, stretch, init_mean = merged(scalars, (temperature, stretch, init_mean))
        sizes = named_sizes(sizes, input_dim, output_dim)
        self.gate_size: tuple[int, ...] = tuple(as_size("gate_size", size) for size in sizes)
        self.temperature = temperature
        self.stretch = positive("stretch", stretch)
        self.gamma = -self.stretch
        self.zeta = 1.0 + self.stretch
        self.init_mean = None if init_mean is None else as_probability("init_mean", init_mean)
        self.eval_temperature = as_flag("eval_temperature", eval_temperature)
        self._link: _Link | None = None
        self.qz_logits = nn.Parameter(torch.zeros(self.gate_size, device=device, dtype=as_floating(dtype)))
        self.reset_parameters()

    @property
    def temperature(self) -> float:
        """beta, above 0; assigning another value takes effect at the next draw."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = positive("temperature", value)

    def reset_parameters(self) -> None:
        """``qz_logits = log(init_mean / (1 - init_mean))``; nothing where init_mean is None."""
        if self.init_mean is None:
            return
        mean = min(max(self.init_mean, INIT_MARGIN), 1 - INIT_MARGIN)
        with torch.no_grad():
            self.qz_logits.fill_(math.log(mean / (1 - mean)))

    # -- gates -------------------------------------------------------------------------------------------------------

    def forward(self, input_shape: Sequence[int] | None = None) -> Tensor:
        """Gates z in [0, 1] of shape ``gate_size``: sampled in training, deterministic in evaluation.

        Args:
            input_shape: where it has more dimensions than the gates, ones are appended until z has as many: gates of
                channels [C] then multiply a weight [C, ...].
        """
        z = self._sample_gates() if self.training else self._deterministic_gates()
        if input_shape is not None and len(input_shape) > z.dim():
            z = z.reshape(*z.shape, *[1] * (len(input_shape) - z.dim()))
        return z

    def _sample_gates(self) -> Tensor:
        """Gates with fresh noise, from a seed that torch's generator draws."""
        options = {"uniform_eps": self._UNIFORM_EPS, **self._gate_options()}
        return ops.hard_concrete(self.qz_logits, self._draw_seed(), **options)

    def _deterministic_gates(self) -> Tensor:
        """Gates without noise."""
        return ops.hard_concrete(self.qz_logits, eval_temperature=self.eval_temperature, **self._gate_options())

    def masked(self, weight: Tensor, dim: int | None = None, handover: _linked.Handover | None = None) -> Tensor:
        """``weight * z`` in one pass: gates per element, or with ``dim`` one per slice along it.

        The same as multiplying by what calling the module gives, which is what happens where that call has been
        overridden or has hooks, or the dtypes differ.

        Args:
            weight: of ``gate_size`` elements in any shape; with dim, of gate_size slices along it.
            dim: as in :func:`l0fast.ops.gated_weight`.
            handover: for :func:`l0fast._linked.linear`.
        """
        log_alpha = self.qz_logits
        self._link = None
        if not self.is_plain() or log_alpha.dtype != weight.dtype:
            spread = weight.shape if dim is None else [-1 if d == dim else 1 for d in range(weight.dim())]
            return weight * self().reshape(spread)
        seed = self._draw_seed() if self.training else None
        options = {**self._gate_options(), "eval_temperature": self.eval_temperature, "uniform_eps": self._UNIFORM_EPS}
        if not (_linked.usable(weight, log_alpha) and weight.is_contiguous() and log_alpha.is_contiguous()):
            return ops.gated_weight(weight, log_alpha, seed, dim, with_penalty=False, **options)[0]
        ops.check_gated_weight(weight, log_alpha, dim)
        gate = tuple(self._gate_options().values())
        ops.check_gate_options(*gate, self._UNIFORM_EPS)
        scalars = (0, 0, *gate, self._UNIFORM_EPS, self.eval_temperature)
        v, link = _linked.masked_weight(weight, log_alpha, seed, dim, scalars, handover)
        if log_alpha.requires_grad:
            self._link = _Link(link, log_alpha, log_alpha._version, log_alpha.dtype, gate)
        return v

    def is_plain(self) -> bool:
        """Whether calling the module means what this class says it does."""
        return unchanged(
            self, HardConcrete, "forward", "_sample_gates", "_deterministic_gates", "_draw_seed"
        ) and not hooked(self)

    def _draw_seed(self) -> Tensor:
        return torch.randint(0, 2**63 - 1, (1,), device=self.qz_logits.device)

    def _gate_options(self) -> dict:
        return {
            "temperature": self.temperature,
            "gamma": self.gamma,
            "zeta": self.zeta,
            "bound": self.LOG_ALPHA_BOUND,
        }

    # -- penalty and counts ------------------------------------------------------------------------------------------

    def get_penalty(self) -> Tensor:
        """Expected number of open gates, a scalar in [0, n]: see :func:`l0fast.ops.l0_penalty`."""
        link = self.penalty_link()
        if link is None:
            return ops.l0_penalty(self.qz_logits, **self._gate_options())
        with torch.no_grad():
            value = ops.l0_penalty(self.qz_logits, **self._gate_options())
        return _linked.penalty(value, link)

    def penalty_link(self) -> Tensor | None:
        """The scalar through which a penalty of these gates, as they are, shares the backward pass of their last use.

        None where there is none, or it was of other parameters, other options or another version of them.
        """
        if not _linked.eager() or self._link is None:  # in this order: torch.compile would guard on the link
            return None
        link, log_alpha = self._link, self.qz_logits
        same = link.log_alpha is log_alpha and link.version == log_alpha._version and log_alpha.requires_grad
        same = same and (link.tensor.device, link.dtype) == (log_alpha.device, log_alpha.dtype)  # not so after .to()
        return link.tensor if same and link.gate == tuple(self._gate_options().values()) else None

    def get_active_prob(self) -> Tensor:
        """P(z != 0) of each gate, of shape ``gate_size``, in (0, 1), differentiable."""
        return reference.active_probability(self.qz_logits, **self._gate_options())

    def get_sparsity(self) -> float:
        """``1 - mean P(z != 0)``, in [0, 1]."""
        with torch.no_grad():
            return 1.0 - reference.arithmetic(self.get_active_prob()).mean().item()

    @torch.no_grad()
    def get_num_active(self) -> int:
        """Number of gates with P(z != 0) above 1/2."""
        return int((self.get_active_prob() > 0.5).sum().item())

    # -- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_link": None}  # a graph belongs to no copy

    def __setstate__(self, state: dict) -> None:
        # Whole modules that l0-python has pickled have temperature as a plain attribute, and none of ours.
        state = {"_link": None, "eval_temperature": True, **state}
        if "temperature" in state:
            state["_temperature"] = state.pop("temperature")
        super().__setstate__(state)

    def extra_repr(self) -> str:
        return (
            f"gate_size={self.gate_size}, temperature={self.temperature}, stretch={self.stretch}, "
            f"init_mean={self.init_mean}"
        )


class _Link(NamedTuple):
    """A link of :mod:`l0fast._linked` and what it was made of."""

    tensor: Tensor
    log_alpha: nn.Parameter
    version: int
    dtype: torch.dtype
    gate: tuple[float, ...]
