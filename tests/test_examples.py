"""Every example runs and says what its docstring promises."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(name):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def test_calibrate_survey():
    """About 4,500 records at 1.7 %: what l0-python reaches on this problem (shared figures, 1,000 epochs)."""
    words = run("calibrate_survey.py").split()
    records, error = int(words[0].replace(",", "")), float(words[-1].rstrip("%"))
    assert 4275 <= records <= 4726 and error < 1.85
