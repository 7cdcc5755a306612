"""The gate that all stand-alone gates build on."""

from numbers import Integral

import torch
from torch import Tensor, nn

from .._checks import as_probability, as_size
from ..distributions import HardConcrete


class L0Gate(nn.Module):
    """Hard Concrete gates on the items (samples, features, ...) along one dimension of a tensor.

    Sampled in training, deterministic in evaluation: see :class:`l0fast.HardConcrete`.

    Args:
        size: number of items.
        temperature: beta, above 0.
        init_mean: initial ``sigmoid(qz_logits)``, in [0, 1].
        eval_temperature: False gives the original authors' test-time gate, ``sigmoid(log_alpha)``.
        device, dtype: of the gates.

    Attributes:
        gates: :class:`l0fast.HardConcrete` [size]; the state_dict has ``gates.qz_logits``.
        temperature: that of ``gates``; assigning it takes effect (l0-python keeps a copy that nothing reads).
        size, init_mean: as above.

    Raises:
        TypeError, ValueError: an argument of another type or out of range, by name.
    """

    def __init__(
        self,
        size: int,
        temperature: float = 0.5,
        init_mean: float = 0.5,
        *,
        eval_temperature: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.size = as_size("size", size)
        self.init_mean = init_mean
        self.gates = HardConcrete(
            self.size,
            temperature=temperature,
            init_mean=init_mean,
            eval_temperature=eval_temperature,
            device=device,
            dtype=dtype,
        )

    def __setstate__(self, state: dict) -> None:
        """Also takes what l0-python has pickled: there the temperature is kept twice, and that of the gates counts."""
        super().__setstate__({name: value for name, value in state.items() if name != "temperature"})

    @property
    def temperature(self) -> float:
        """beta of the gates, above 0."""
        return self.gates.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.gates.temperature = value

    def get_gates(self) -> Tensor:
        """Gates z [size] in [0, 1], differentiable; a fresh draw at every call in training."""
        return self.gates()

    def apply_gates(self, x: Tensor, dim: int = 0) -> Tensor:
        """``x * z`` with z along dimension ``dim``, of the shape of x.

        Raises:
            TypeError, ValueError: x has no such dimension, another size along it, or lies on another device.
        """
        self._check_items("x", x, dim)
        return x * self.get_gates().view([-1 if d == dim % x.dim() else 1 for d in range(x.dim())])

    def get_penalty(self) -> Tensor:
        """Expected number of open gates, a scalar in [0, size]."""
        return self.gates.get_penalty()

    @torch.no_grad()
    def get_active_indices(self, threshold: float = 0.5) -> Tensor:
        """Indices [k] int64, ascending, of the items whose gate is above threshold.

        Args:
            threshold: in [0, 1].

        Raises:
            TypeError, ValueError: threshold is not a probability.
        """
        return above(self.get_gates(), threshold)

    def _check_items(self, name: str, x: Tensor, dim: int) -> None:
        check_items(name, x, dim, self.size, self.gates.qz_logits.device)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def above(gates: Tensor, threshold: float) -> Tensor:
    return (gates > as_probability("threshold", threshold)).nonzero()[:, 0]


def check_items(name: str, x, dim: int, size: int, device: torch.device) -> None:
    """x is a tensor on the device that has `size` items along dimension `dim`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if isinstance(dim, bool) or not isinstance(dim, Integral):
        raise TypeError(f"dim: expected an int, got {dim!r}")
    if x.dim() == 0:
        raise ValueError(f"{name}: expected {size} items along a dimension, got a tensor without dimensions")
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim: expected a dimension of {name}, from {-x.dim()} to {x.dim() - 1}, got {dim}")
    if x.shape[dim] != size:
        raise ValueError(f"{name}: expected {size} items along dimension {dim}, got shape {list(x.shape)}")
    if x.device != device:
        raise ValueError(f"{name}: expected it on {device} as the gates are, got {x.device}")
