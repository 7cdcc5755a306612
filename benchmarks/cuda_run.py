"""The run of bench_cuda.py, once the libraries are built: sections in their order, each in its share of the time."""

import argparse
import gc
import sys
import traceback

import cuda_agreement
import cuda_calibration
import cuda_elementwise
import cuda_layers
import torch
from agreement import DisagreementError
from common import CACHE, RESULTS, run_facts
from cuda_report import CALIBRATIONS, Report, copy_to_out, print_table
from cuda_timing import QUICK, Budget, Pace, Timer, copy_bandwidth
from layer_contenders import installed

from l0fast import _load

SIDE, QUICK_SIDE = 8192, 64
FEATURES, BATCH = 4096, 512
COPY_BYTES, QUICK_COPY_BYTES = 4 << 30, 1 << 20
AGREEMENT = (2_000, 20_000, 20)
"""Targets, records and nonzeros of a column of the 100 epochs that the CPU runs in float64 too."""


def facts_of(options: argparse.Namespace, device: torch.device) -> dict[str, str]:
    """The columns with which every row begins; torch's version says which CUDA it is."""
    facts = run_facts()
    if options.commit:
        facts["commit"] = options.commit
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["device"] = f"{properties.name}, {properties.multi_processor_count} multiprocessors"
    return facts


def missing_kernels(device: torch.device) -> str | None:
    """Why the device would be served by plain torch instead of kernels, or None."""
    if (why := _load.native_error()) is not None:
        return why
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    key = "CUDA" if device.type == "cuda" else "CPU"
    names = ("hard_concrete", "l0_penalty", "gated_weight", "gated_totals", "calibration_epochs_")
    lacking = [name for name in names if not has(f"l0fast::{name}", key)]
    return f"no {key} kernel for {', '.join(lacking)}" if lacking else None


def run(options: argparse.Namespace, seconds: float, weights: dict[str, float]) -> int:
    device = torch.device(options.device)
    if options.quick:
        torch.set_num_threads(1)  # a second one would cost more than it brings, most of all on a busy machine
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    out = options.out or RESULTS / "cuda.csv"
    report = Report(out, facts_of(options, device))
    print(", ".join(f"{name} {value}" for name, value in report.facts.items()))
    if (why := missing_kernels(device)) is not None:
        print(f"check failed: expected the compiled kernels, but {why}", file=sys.stderr)
        return 1
    if not installed():
        report.note("l0-python is not installed: measured without it")
    timer = Timer(device, QUICK if options.quick else Pace())
    report.copy_bandwidth = copy_bandwidth(timer, QUICK_COPY_BYTES if options.quick else COPY_BYTES, seconds=2.0)
    print(f"copy: {report.copy_bandwidth / 1e9:.0f} GB/s read and written", flush=True)
    if options.quick:
        seconds = min(seconds, 20.0)
    budget = Budget(seconds, {name: weights[name] for name in options.sections})
    code = 0
    for section in options.sections:
        print(f"\n{section}: {budget.begin(section):.0f} s", flush=True)
        try:
            run_section(section, report, timer, budget, options)
        except DisagreementError as error:
            report.note(str(error))
            code = 1
            break
        except Exception as error:  # out of memory, a launch that failed: the other sections still have their table
            traceback.print_exc()
            report.note(f"check failed: {section} ended with {type(error).__name__}: {str(error).splitlines()[:1]}")
            code = 1
        gc.collect()
        if timer.cuda:
            torch.cuda.empty_cache()
    print_table(report, judged=not options.quick)
    copy_to_out(out)
    if code:
        print(next(note for note in report.notes if "check failed" in note), file=sys.stderr)
    return code


def run_section(section: str, report: Report, timer: Timer, budget: Budget, options: argparse.Namespace) -> None:
    quick, device = options.quick, timer.device
    compiled = not (quick or options.no_compile)
    if section == "agreement":
        cuda_agreement.check_hundred_epochs(report, device, (60, 800, 8) if quick else AGREEMENT)
    elif section == "elementwise":
        cuda_elementwise.run(report, timer, budget, QUICK_SIDE if quick else SIDE, compiled)
    elif section == "layers":
        cuda_layers.run(report, timer, budget, 48 if quick else FEATURES, 4 if quick else BATCH, compiled)
    else:
        try:
            problem = cuda_calibration.problem_named(section, device, quick, options.cps, options.cache or CACHE)
        except OSError as error:
            report.note(f"{section}: left out, {error}")
            return
        if section == CALIBRATIONS[-1]:
            cuda_agreement.check_same_bits(report, problem)
        cuda_calibration.run_problem(report, timer, budget, problem)
