"""The device of the tests in this folder: a GPU, or what L0FAST_TEST_DEVICE says. Elsewhere they say what is missing.

``L0FAST_TEST_DEVICE=cpu`` compares the CPU kernels with the reference (and with themselves), which shows that the tests
are in order; in the emulator (run_emulated.sh) the same CPU tensors are served by the CUDA kernels. What needs a real
GPU asks for the fixture ``gpu``.

Files here need names that no file in tests/ has (test_cuda_<op>.py): pytest imports them by their base names.
"""

import os

import pytest
import torch

from l0fast import _load


def missing(wanted: str) -> str | None:
    """What the tests lack on this device; None where they can run."""
    if _load.native_error() is not None:
        return f"needs the compiled kernels: {_load.native_error()}"
    if wanted == "cpu":
        return None
    if not torch.cuda.is_available():
        return f"needs a GPU, torch {torch.__version__} sees none"
    if not torch._C._dispatch_has_kernel_for_dispatch_key("l0fast::hard_concrete", "CUDA"):
        return "needs the compiled CUDA kernels: L0FAST_CUDA=1 python setup.py build_ext --inplace"
    return None


@pytest.fixture
def device() -> torch.device:
    """As tensors report it: cuda:0, not cuda."""
    wanted = os.environ.get("L0FAST_TEST_DEVICE", "cuda")
    if (reason := missing(wanted)) is not None:
        pytest.skip(reason)
    return torch.empty(0, device=wanted).device


@pytest.fixture
def gpu(device) -> torch.device:
    """The device where it has streams, graphs and memory of its own."""
    if device.type != "cuda":
        pytest.skip("needs a real GPU: streams, graphs and memory of its own")
    return device
