"""Unedited programs of l0-python run on l0fast. Each case has a process of its own: sys.modules is the subject."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS_L0 = pytest.mark.skipif(find_spec("l0") is None, reason="l0-python is not installed: nothing to stand in for")

PROGRAM = """
import l0, torch
import l0.calibration as calibration
from l0 import SparseMLP, compute_l0l2_penalty
from l0.calibration import SparseCalibrationWeights
from l0.distributions import HardConcrete
from l0.gates import FeatureGate, HybridGate, SampleGate
from l0.layers import L0Conv2d, L0Linear, prune_model
from l0.penalties import PenaltyTracker, TemperatureScheduler, update_temperatures
from l0.sparse import SparseL0Linear
"""


def run(program: str, *arguments: str, fails: bool = False) -> str:
    """What the program prints, or with ``fails`` the last line of its traceback."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr.strip().splitlines()[-1] if fails else done.stdout


def test_an_unedited_program_gets_l0fast():
    checks = """
import sys, l0fast
assert l0 is l0fast and calibration is l0fast.calibration and L0Linear is l0fast.L0Linear
assert SparseL0Linear is l0fast.SparseL0Linear and FeatureGate is l0fast.FeatureGate
for name, module in list(sys.modules.items()):
    if name.startswith("l0.") :
        assert module is sys.modules["l0fast" + name[2:]], name
layer = L0Linear(3, 2).eval()
print(tuple(layer(torch.zeros(4, 3)).shape), type(layer).__module__.split(".")[0])
"""
    program = "from l0fast.compat import install_as_l0\ninstall_as_l0(); install_as_l0()\n" + PROGRAM + checks
    assert run(program) == "(4, 2) l0fast\n"


def test_files_are_not_run_twice():
    """A second import of a module under the other name would make its classes, and its torch ops, once more."""
    program = """
from l0fast import install_as_l0
install_as_l0()
import l0.layers.linear, l0.ops, l0fast
assert l0.layers.linear.L0Linear is l0fast.L0Linear and l0.ops is l0fast.ops
"""
    run(program)


@NEEDS_L0
def test_another_l0_is_not_replaced_unasked():
    program = """
import sys, l0.layers
theirs = l0.layers
from l0fast import install_as_l0
if len(sys.argv) == 1:
    install_as_l0()
install_as_l0(replace=True)
import l0, l0fast
print(l0 is l0fast, theirs is sys.modules["l0.layers"])
"""
    line = run(program, fails=True)
    assert line.startswith("RuntimeError: install_as_l0: another package named 'l0' is already imported (l0 from ")
    assert line.endswith("or pass replace=True")
    assert run(program, "go") == "True False\n"


@NEEDS_L0
def test_uninstall_gives_the_other_l0_back():
    program = """
import l0fast
l0fast.install_as_l0()
from l0.layers import L0Linear as ours
l0fast.compat.uninstall_as_l0()
from l0.layers import L0Linear as theirs
l0fast.compat.uninstall_as_l0()
import l0
print(ours.__module__, theirs.__module__, l0.__name__)
"""
    assert run(program) == "l0fast.layers.linear l0.layers l0\n"
