import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse as sp

sys.path.insert(0, str(Path(__file__).parent))

from model_problem import survey

from l0fast import _load


def pytest_report_header():
    return f"l0fast kernels: {_load.instruction_set()}, {_load.native_error() or 'compiled'}"


@pytest.fixture
def native():
    """Skips a test that is about the compiled kernels where they are not in use."""
    if _load.native_error() is not None:
        pytest.skip(f"needs the compiled CPU kernels: {_load.native_error()}")


@pytest.fixture(autouse=True)
def two_threads():
    """Tests change the thread count; each starts from the same one."""
    torch.set_num_threads(2)
    torch.manual_seed(0)


def columns(m, n, density=0.2, dtype=torch.float32, row_type=torch.uint16, seed=1):
    """A random matrix [m, n] as the tensors that the ops take."""
    matrix = sp.random(m, n, density=density, format="csc", random_state=np.random.default_rng(seed))
    return (
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int32)).to(row_type),
        torch.from_numpy(matrix.data).to(dtype),
    )


@pytest.fixture
def problem():
    """M [30, 400] and the targets y that some weights between 0.5 and 1.5 meet."""
    return survey()
