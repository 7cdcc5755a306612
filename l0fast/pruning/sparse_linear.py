"""A linear layer that stores its open weights only."""

import warnings

import torch
from torch import Tensor, nn

from .._checks import as_size

INDEX = torch.int32
"""MKL multiplies with 32-bit indices as they are; 64-bit ones took 1.2 to 1.5 times as long (1024 x 1024, B 128)."""


class SparseLinear(nn.Module):
    """``y = x W^T + bias`` with W in compressed sparse rows: :func:`to_sparse` makes it from an nn.Linear.

    For inference: gradients reach the input and the bias, not W. The state_dict holds plain dense tensors;
    ``load_state_dict`` takes any number of nonzeros. There is no ONNX form.

    Args:
        in_features, out_features: sizes of the last dimension of x and of y.
        bias: whether there is one.
        device, dtype: of the values. W is 0 until :meth:`from_linear` or ``load_state_dict`` fills it.

    Attributes:
        crow_indices: int32 buffer [out_features + 1]. col_indices: int32 buffer [nonzeros].
        values: buffer [nonzeros]. bias: parameter [out_features] or None.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None):
        super().__init__()
        self.in_features = as_size("in_features", in_features)
        self.out_features = as_size("out_features", out_features)
        self.register_buffer("crow_indices", torch.zeros(out_features + 1, dtype=INDEX, device=device))
        self.register_buffer("col_indices", torch.zeros(0, dtype=INDEX, device=device))
        self.register_buffer("values", torch.zeros(0, dtype=dtype or torch.get_default_dtype(), device=device))
        self.register_parameter(
            "bias", nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None
        )

    @classmethod
    def from_linear(cls, layer: nn.Linear) -> "SparseLinear":
        """The same layer, stored sparse. Its bias is the same parameter, not a copy."""
        weight = layer.weight.detach()
        made = cls(layer.in_features, layer.out_features, False, weight.device, weight.dtype)
        rows, columns = weight.nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=layer.out_features)
        made.crow_indices[1:] = counts.cumsum(0)
        made.col_indices, made.values = columns.to(INDEX), weight[rows, columns]
        made.bias = layer.bias
        _check_csr(made.crow_indices, made.col_indices, made.values, tuple(weight.shape))
        return made.train(layer.training)

    def matrix(self) -> Tensor:
        """W [out_features, in_features] as a sparse CSR tensor on the layer's own buffers."""
        parts = (self.crow_indices, self.col_indices, self.values)
        return torch.sparse_csr_tensor(*parts, (self.out_features, self.in_features), check_invariants=False)

    def forward(self, input: Tensor) -> Tensor:
        """y [..., out_features] from x [..., in_features], contiguous as nn.Linear's."""
        if input.shape[-1:] != (self.in_features,):
            raise ValueError(f"input: expected a last dimension of {self.in_features}, got shape {list(input.shape)}")
        columns = input.reshape(-1, self.in_features).t()
        if self.bias is None:
            out = self.matrix() @ columns
        else:
            out = torch.addmm(self.bias[:, None], self.matrix(), columns)
        return out.t().contiguous().view(*input.shape[:-1], self.out_features)

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        """Takes over the number of nonzeros, and checks the indices: a wrong one would read foreign memory."""
        names = ("crow_indices", "col_indices", "values")
        crow, columns, values = (state_dict.get(prefix + name) for name in names)
        if all(isinstance(part, Tensor) for part in (crow, columns, values)):
            shape = (self.out_features, self.in_features)
            try:
                _check_csr(crow, columns, values, shape)
            except RuntimeError as error:
                names = f"{prefix}crow_indices, col_indices, values"
                raise ValueError(f"{names}: expected a CSR matrix of shape {shape}; {error}") from error
            self.col_indices = self.col_indices.new_empty(columns.shape)
            self.values = self.values.new_empty(values.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        density = self.values.numel() / (self.in_features * self.out_features)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"density={density:.4f}"
        )


def _check_csr(crow: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
    with warnings.catch_warnings():  # torch says once a process that CSR is in beta
        warnings.filterwarnings("ignore", message="Sparse CSR")
        torch.sparse_csr_tensor(crow.to(INDEX), columns.to(INDEX), values, shape, check_invariants=True)
