"""Peak memory of a contender, in a process of its own: what it needs on top of the problem it was given.

Run by bench_calibration.py as ``python peak_memory.py CONTENDER PROBLEM.npz PLAN``; prints megabytes.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from contenders import CONTENDERS
from problems import load_problem, log_alpha_of


def measure(contender_name: str, problem_file: Path, plan: dict) -> float | None:
    """Megabytes, or None where the system does not tell (anything but Linux)."""
    command = [sys.executable, __file__, contender_name, str(problem_file), json.dumps(plan)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        return None
    return float(finished.stdout.split()[-1])


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main(contender_name: str, problem_file: str, plan: str) -> None:
    problem = load_problem("problem", Path(problem_file))
    contender_class = next(c for c in CONTENDERS if c.name == contender_name)
    log_weight = torch.log(torch.tensor(problem.w0, dtype=torch.float32) + 1e-8)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = _status("VmRSS")
    contender = contender_class(problem, json.loads(plan))
    contender.set_state(log_weight, log_alpha_of("open", problem.n_records))
    contender.fit(2)
    print(_status("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
