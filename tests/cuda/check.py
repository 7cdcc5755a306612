"""``make cuda-check``: compiles and links the CUDA sources, with or without a GPU, and looks at what came out.

Fails on a warning, an error, a kernel that keeps anything in local memory (a stack or spilled registers), a symbol that
no CUDA build of torch promises, or an op without a CUDA kernel. ``--optional``: without nvcc, say so and succeed.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cuda_toolkit

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "cuda-check"

CPU_ONLY = {"instruction_set", "count_parts", "empty_large", "gated_weight_backward_"}
"""Ops that are about the CPU, or that only its layers call (l0fast/_linked.py)."""

PROMISED = re.compile(r"(aoti_torch_|torch_)\w+$|.+@(GLIBC|GLIBCXX|CXXABI|GCC)_[\w.]+$|_ZN?K?St\w+$")
"""Torch's stable interface, what the C and C++ libraries export under a version, and names in std, for which the linker
may have found a copy without a version in torch."""


@dataclass
class Kernel:
    """What ptxas says of a kernel on one architecture; a device function that was not inlined has no registers."""

    source: str
    name: str
    architecture: str
    stack: int = 0
    spills: int = 0
    registers: int | None = None
    shared: int = 0


def ptxas_report(source: str, text: str) -> list[Kernel]:
    """The kernels in the output of ``nvcc -Xptxas -v``, names as the compiler writes them."""
    found: dict[tuple[str, str], Kernel] = {}
    architecture = name = ""
    for line in text.splitlines():
        if match := re.search(r"Compiling entry function '(.+)' for '(\w+)'", line):
            name, architecture = match.groups()
            entry = found.setdefault((name, architecture), Kernel(source, name, architecture))
        elif match := re.search(r"Function properties for (\S+)", line):
            name = match[1]
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernel = found.setdefault((name, architecture), Kernel(source, name, architecture))
            kernel.stack, kernel.spills = int(match[1]), int(match[2]) + int(match[3])
        elif match := re.search(r"Used (\d+) registers", line):
            entry.registers = int(match[1])
            entry.shared = int(shared[1]) if (shared := re.search(r"(\d+) bytes smem", line)) else 0
    return sorted(found.values(), key=lambda kernel: (kernel.name, kernel.architecture))


def short_name(demangled: str) -> str:
    """A kernel's name without its namespaces, return type and arguments."""
    text = demangled.replace("(anonymous namespace)::", "").replace("l0fast::cuda::", "").replace("l0fast::", "")
    depth = 0
    for k, character in enumerate(text):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            text = text[:k]
            break
    return text.removeprefix("void ").replace(" >", ">")


def demangled(names: list[str]) -> list[str]:
    result = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return result.stdout.split("\n")[: len(names)]


def compile_command(nvcc: Path, source: Path, target: Path) -> list[str]:
    """As setup.py compiles it, for the default architectures, with every warning an error."""
    from torch.utils.cpp_extension import COMMON_NVCC_FLAGS, include_paths

    # As system headers: torch's own warnings are none of ours.
    headers = [part for path in include_paths() for part in ("-isystem", path)]
    return [
        *(str(nvcc), "-c", str(source), "-o", str(target), f"-I{cuda_toolkit.CSRC}", *headers),
        *(*COMMON_NVCC_FLAGS, "-Xcompiler=-fPIC", *cuda_toolkit.NVCC_FLAGS),
        *("-Werror", "all-warnings", "-Xcompiler=-Werror", "-Xptxas=-v"),
        *cuda_toolkit.architecture_flags(cuda_toolkit.ARCHITECTURES),
    ]


def compile_source(nvcc: Path, source: Path) -> tuple[Path, str, float, bool]:
    """The object, what the compiler said, its seconds, and whether it succeeded."""
    target = BUILD / f"{source.stem}.o"
    began = time.perf_counter()
    result = subprocess.run(compile_command(nvcc, source, target), capture_output=True, text=True)
    return target, result.stdout + result.stderr, time.perf_counter() - began, result.returncode == 0


def link(nvcc: Path, objects: list[Path]) -> tuple[Path, str]:
    """The library as setup.py links it, but for libtorch_cuda, which a CPU build of torch lacks; and what failed."""
    from torch.utils.cpp_extension import library_paths

    library = BUILD / "_C_cuda.so"
    folders = [f"-L{folder}" for folder in (*cuda_toolkit.library_folders(nvcc), *library_paths())]
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    command = [*compiler, "-shared", "-o", str(library), *map(str, objects), *folders]
    result = subprocess.run([*command, "-lc10", "-ltorch_cpu", *cuda_toolkit.CUDART], capture_output=True, text=True)
    return library, result.stderr if result.returncode else ""


def unpromised_symbols(nm_output: str) -> list[str]:
    """Undefined symbols (``nm -D --undefined-only``) that no library in the process promises; weak ones may stay."""
    rows = [line.split() for line in nm_output.splitlines()]
    return [row[-1] for row in rows if row and row[-2] != "w" and not PROMISED.match(row[-1])]


# In a process of its own. Lazily, so that the functions about streams may be missing under a CPU torch.
REGISTERED = """
import ctypes, os, sys, torch
torch.ops.load_library(sys.argv[1])
ctypes.CDLL(sys.argv[2], mode=os.RTLD_LAZY)
ops = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("l0fast::")}
print(*sorted(op for op in ops if not torch._C._dispatch_has_kernel_for_dispatch_key(op, "CUDA")))
"""


def ops_without_kernel(library: Path) -> tuple[list[str], str]:
    """Ops that the library registers no CUDA kernel for; and, where that cannot be told, why."""
    compiled = sorted((ROOT / "l0fast").glob("_C.*so"))
    if not compiled:
        return [], "no compiled l0fast/_C in this tree, so the registrations were not looked at"
    command = [sys.executable, "-c", REGISTERED, str(compiled[0]), str(library)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        return [], f"{library.name} does not load: {result.stderr.strip().splitlines()[-1]}"
    return [op for op in result.stdout.split() if op.removeprefix("l0fast::") not in CPU_ONLY], ""


def print_table(kernels: list[Kernel]) -> None:
    print(f"{'file':<20} {'arch':<6} {'registers':>9} {'shared':>7} {'stack':>6} {'spills':>7}  kernel")
    for kernel, name in zip(kernels, demangled([kernel.name for kernel in kernels]), strict=True):
        numbers = f"{'-' if kernel.registers is None else kernel.registers:>9} {kernel.shared:>7}"
        print(
            f"{kernel.source:<20} {kernel.architecture:<6} {numbers} {kernel.stack:>6} {kernel.spills:>7}  "
            f"{short_name(name)}"
        )


def check(nvcc: Path, sources: list[Path]) -> list[str]:
    """What is wrong, one line each; prints the table."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The largest first: it would otherwise keep one core busy at the end.
        order = sorted(sources, key=lambda source: -source.stat().st_size)
        by_source = dict(zip(order, pool.map(lambda source: compile_source(nvcc, source), order), strict=True))
    results = [by_source[source] for source in sources]
    wrong, kernels = [], []
    for source, (_, said, seconds, good) in zip(sources, results, strict=True):
        kernels += ptxas_report(source.name, said)
        if not good:
            wrong.append(f"{source.name} does not compile without warnings:\n{said.strip()}")
        print(f"{source.name}: {seconds:.0f} s")
    print_table(kernels)
    for kernel in kernels:
        if kernel.stack or kernel.spills:
            name = short_name(demangled([kernel.name])[0])
            memory = f"{kernel.stack} bytes of stack and {kernel.spills} of spills"
            wrong.append(f"{kernel.source}: {name} on {kernel.architecture} has {memory}")
    if all(good for *_, good in results):
        wrong += check_library(nvcc, [target for target, *_ in results])
    return wrong


def check_library(nvcc: Path, objects: list[Path]) -> list[str]:
    library, error = link(nvcc, objects)
    if error:
        return [f"_C_cuda does not link:\n{error.strip()}"]
    nm = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    wrong = [f"_C_cuda needs {symbol}, which nothing promises" for symbol in unpromised_symbols(nm.stdout)]
    missing, problem = ops_without_kernel(library)
    if problem:
        wrong.append(problem)
    return wrong + [f"{op} has no CUDA kernel" for op in missing]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--optional", action="store_true", help="succeed where there is no nvcc")
    options = parser.parse_args(arguments)
    nvcc, sources = cuda_toolkit.find_nvcc(), cuda_toolkit.cuda_sources()
    if nvcc is None:
        print("cuda-check: skipped, there is no nvcc in CUDA_HOME, on the PATH or in /usr/local/cuda")
        return 0 if options.optional else 2
    began = time.perf_counter()
    wrong = check(nvcc, sources)
    for line in wrong:
        print(f"cuda-check: {line}", file=sys.stderr)
    outcome = f"{len(wrong)} wrong" if wrong else "all good"
    print(f"cuda-check: {len(sources)} files with {nvcc}, {time.perf_counter() - began:.0f} s: {outcome}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
