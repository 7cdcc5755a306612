"""Tests of the CUDA kernels: they run where a GPU and the compiled kernels are, and say what is missing elsewhere.

Files here need names that no file in tests/ has (test_cuda_<op>.py): pytest imports them by their base names. Folders
below this one are their own: what lies there runs without a GPU unless it says otherwise.
"""

from pathlib import Path

import pytest
import torch

from l0fast import _load

HERE = Path(__file__).parent


def missing() -> str | None:
    """What the tests lack; None where they can run."""
    if torch.version.cuda is None:
        return f"needs a CUDA build of torch, this is {torch.__version__}"
    if not torch.cuda.is_available():
        return "needs a GPU, torch sees none"
    if _load.cuda_error() is not None:
        return f"needs the compiled CUDA kernels: {_load.cuda_error()}"
    return None


def pytest_collection_modifyitems(items):
    reason = missing()
    for item in items:
        if reason is not None and item.path.parent == HERE:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def device() -> torch.device:
    """The GPU, as tensors report it."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    return torch.empty(0, device="cuda").device
