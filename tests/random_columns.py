"""Random matrices as the compressed columns that the ops take."""

import numpy as np
import torch
from scipy import sparse as sp


def columns(m, n, density=0.2, dtype=torch.float32, row_type=torch.uint16, seed=1):
    """A random matrix [m, n] as the tensors that the ops take."""
    matrix = sp.random(m, n, density=density, format="csc", random_state=np.random.default_rng(seed))
    return (
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int32)).to(row_type),
        torch.from_numpy(matrix.data).to(dtype),
    )
