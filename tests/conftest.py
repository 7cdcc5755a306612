import signal
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.fixture
def problem():
    """M [30, 400] and the targets y that some weights between 0.5 and 1.5 meet."""
    return survey()


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell's background job ignores Ctrl-C from its start, and so would every run here."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
