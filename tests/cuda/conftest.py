"""The device that the tests of this folder run on: a GPU, or what L0FAST_TEST_DEVICE says.

``L0FAST_TEST_DEVICE=cpu`` compares the CPU kernels with the reference (and with themselves), which shows that the tests
are in order; in the emulator the same CPU tensors are served by the CUDA kernels.
"""

import os

import pytest
import torch

from l0fast import _load


@pytest.fixture
def device() -> str:
    wanted = os.environ.get("L0FAST_TEST_DEVICE", "cuda")
    if wanted == "cpu":
        if _load.native_error() is not None:
            pytest.skip(f"needs compiled kernels: {_load.native_error()}")
        return wanted
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: torch.cuda.is_available() is False")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("l0fast::hard_concrete", "CUDA"):
        pytest.fail("a GPU is here, but no CUDA kernels: build with L0FAST_CUDA=1")
    return str(torch.empty(0, device=wanted).device)  # cuda:0, not cuda: as tensors report it


@pytest.fixture
def gpu(device) -> str:
    """The device where it has streams, graphs and memory of its own."""
    if not device.startswith("cuda"):
        pytest.skip("needs a real GPU: streams, graphs and memory of its own")
    return device
