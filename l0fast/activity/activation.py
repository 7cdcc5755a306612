"""Gates on the features of a layer's input."""

import torch
from torch import Tensor, nn

from .. import ops
from .._checks import as_probability, as_size
from ..distributions import HardConcrete
from .regularizer import PAPER_TEMPERATURE, Regularized, as_scale


class L0Activation(Regularized):
    """``y = x * z`` with a Hard Concrete gate for each feature of x: dropout that learns what to drop for good.

    In training one draw of the gates serves the whole batch; in evaluation the gates are deterministic.

    Args:
        n_features: D.
        reg_const: price of an open gate in :meth:`regularization_loss`, finite and at least 0.
        feature_dim: the dimension of x that has the features: -1 for x [..., D], 0 for x [D, ...].
        temperature: beta of the gates, above 0.
        init_sparsity: initial ``1 - sigmoid(qz_logits)``, in [0, 1].
        seed: with a number every draw follows from it and from how many draws there were; None takes torch's generator.
        device, dtype: of the gates.

    Attributes:
        gates: :class:`l0fast.HardConcrete` [D].
        draws: of a seeded module, how many times it has drawn: an int64 buffer, so that a resumed run goes on with new
            noise; ``draws.zero_()`` has the same noise again.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.

    Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 2.2, on activities in place of weights.
    """

    def __init__(
        self,
        n_features: int,
        reg_const: float = 1.0,
        feature_dim: int = -1,
        *,
        temperature: float = PAPER_TEMPERATURE,
        init_sparsity: float = 0.5,
        seed: int | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        keep = 1 - as_probability("init_sparsity", init_sparsity)
        placed = {"device": device, "dtype": dtype}
        self.gates = HardConcrete(as_size("n_features", n_features), temperature=temperature, init_mean=keep, **placed)
        self.reg_const = as_scale("reg_const", reg_const)
        if isinstance(feature_dim, bool) or not isinstance(feature_dim, int):
            raise TypeError(f"feature_dim: expected an int, got {feature_dim!r}")
        self.feature_dim = feature_dim
        self.seed = None if seed is None else as_size("seed", seed, least=0)
        if self.seed is not None:
            self.register_buffer("draws", torch.zeros((), dtype=torch.int64, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """y, of the shape and dtype of x.

        Raises:
            TypeError: x is no floating tensor. ValueError: x has another number of features, or no such dimension.
        """
        dim = self._checked_dim(x)
        if self.seed is None or not self.training:
            same = x.dtype == self.gates.qz_logits.dtype
            return self.gates.masked(x, dim) if same else self._times(x, self.gates(), dim)
        z = ops.hard_concrete(
            self.gates.qz_logits,
            torch.tensor([self.seed], device=x.device),
            stream=int(self.draws),
            uniform_eps=self.gates._UNIFORM_EPS,
            **self.gates._gate_options(),
        )
        self.draws += 1
        return self._times(x, z, dim)

    @staticmethod
    def _times(x: Tensor, z: Tensor, dim: int) -> Tensor:
        """In the dtype of x, as dropout has it: under autocast the gates may be more precise than the activity."""
        return x * z.to(x.dtype).view([-1 if d == dim else 1 for d in range(x.dim())])

    def _checked_dim(self, x: Tensor) -> int:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x: expected a floating torch.Tensor, got {got}")
        n = self.gates.qz_logits.numel()
        if not -x.dim() <= self.feature_dim < x.dim() or x.shape[self.feature_dim] != n:
            raise ValueError(f"x: expected {n} features along dimension {self.feature_dim}, got {list(x.shape)}")
        return self.feature_dim % x.dim()

    @torch.no_grad()
    def materialize(self) -> nn.Module:
        """A module that multiplies by the deterministic gates, fixed."""
        training = self.gates.training
        mask = self.gates.eval()().detach().clone()
        self.gates.train(training)
        return FixedMask(mask, self.feature_dim).eval()

    def extra_repr(self) -> str:
        return f"reg_const={self.reg_const}, feature_dim={self.feature_dim}, seed={self.seed}"


class FixedMask(nn.Module):
    """``y = x * mask`` along one dimension: an L0Activation whose gates have been fixed."""

    def __init__(self, mask: Tensor, feature_dim: int):
        super().__init__()
        self.register_buffer("mask", mask)
        self.feature_dim = feature_dim

    def forward(self, x: Tensor) -> Tensor:
        dim = self.feature_dim % x.dim()
        return x * self.mask.to(x.dtype).view([-1 if d == dim else 1 for d in range(x.dim())])
