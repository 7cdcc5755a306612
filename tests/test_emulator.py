"""The emulator that runs the CUDA kernels on the CPU (tests/cuda/emulator): right kernels, and planted errors."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

EMULATOR = Path(__file__).parent / "cuda" / "emulator"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
# Of no use without torch, and not needed here.
TORCH_SIDE = {"composites.cpp", "torch_symbols.cpp"}

pytestmark = pytest.mark.skipif(
    COMPILER is None or os.uname().sysname != "Linux" or os.uname().machine != "x86_64",
    reason="the emulator needs a C++ compiler, Linux and x86-64",
)


def compile_program(folder, emulator_flags=(), kernel_flags=()):
    """The cases are compiled with one set of flags, the emulator with the other; as in build.sh, shared memory last."""
    command = [COMPILER, "-std=c++17", "-O0", "-g1", "-fno-extern-tls-init", f"-I{EMULATOR}"]
    sources = [source for source in EMULATOR.glob("*.cpp") if source.name not in TORCH_SIDE]
    sources.sort(key=lambda source: (source.name == "shared_memory.cpp", source.name))
    running = []
    for source in sources:
        flags = kernel_flags if source.name.startswith("test_") else emulator_flags
        running.append(subprocess.Popen([*command, *flags, "-c", source, "-o", folder / f"{source.stem}.o"]))
    assert [process.wait() for process in running] == [0] * len(running)
    objects = [folder / f"{source.stem}.o" for source in sources]
    subprocess.run([*command, *kernel_flags, *objects, "-ldl", "-lpthread", "-o", folder / "program"], check=True)
    return folder / "program"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compile_program(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(scope="module")
def watched_program(tmp_path_factory):
    """With ThreadSanitizer, as `run_emulated.sh --races` builds the kernels."""
    folder = tmp_path_factory.mktemp("emulator_races")
    (folder / "probe.cpp").write_text("int main() {}")
    flags = ["-fsanitize=thread", "--param", "tsan-distinguish-volatile=1"]
    probe = [COMPILER, *flags, folder / "probe.cpp", "-o", folder / "probe"]
    if subprocess.run(probe, capture_output=True).returncode or subprocess.run([folder / "probe"]).returncode:
        pytest.skip("needs ThreadSanitizer")
    return compile_program(folder, ["-DL0FAST_EMULATED_RACES"], flags)


def run(program, case, **environment):
    return subprocess.run(
        [program, case], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("seed", ["0", "1", "2"])
@pytest.mark.parametrize(
    "case",
    [
        *("reverse", "twice", "collectives", "grid", "warp_exchange", "largest", "fresh_shared"),
        *("launch_limits", "capture", "capture_errors", "intrinsics"),
    ],
)
def test_right_kernels(program, case, seed):
    done = run(program, case, L0FAST_EMULATED_SEED=seed)
    assert done.returncode == 0, done.stdout + done.stderr


def test_size_of_the_device_from_the_environment(program):
    done = run(program, "small_device", L0FAST_EMULATED_SMS="3", L0FAST_EMULATED_SHARED="20000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "L0FAST_EMULATED_SMS: expected an integer" in run(program, "small_device", L0FAST_EMULATED_SMS="x").stderr


@pytest.mark.parametrize("seed", ["0", "1", "2"])
@pytest.mark.parametrize("case", ["missing_barrier", "missing_second_barrier"])
def test_a_missing_barrier_gives_a_wrong_result(program, case, seed):
    done = run(program, case, L0FAST_EMULATED_SEED=seed)
    assert done.returncode == 1 and "wrong: " in done.stdout


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("divergent_barrier", "threads 0 to 39: wait in __syncthreads\n  threads 40 to 63: wait in a shuffle"),
        ("early_exit", "threads 0 to 32: wait in __syncthreads\n  threads 33 to 33: exited"),
        ("divergent_shuffle", "threads 0 to 19: wait in a shuffle with mask 0xffffffff\n  threads 20 to 31: exited"),
        ("outside_mask", "a shuffle reads a lane that its mask leaves out, in thread "),
        ("not_in_mask", "a warp collective's mask leaves out the lane that calls it, in thread 31\n"),
        ("missing_lanes", "a warp collective's mask names lanes that the block does not have"),
        ("behind", "this block wrote byte 100 of its dynamic shared memory of 100 bytes"),
        ("far_behind", "a block wrote byte 20100 of its dynamic shared memory of 100 bytes"),
    ],
)
def test_an_error_ends_the_process_and_says_where(program, case, message):
    done = run(program, case)
    assert done.returncode < 0, done.stdout + done.stderr
    assert message in done.stderr
    kernel = {"behind": "write_behind", "far_behind": "write_behind", "missing_lanes": "collectives"}.get(case, case)
    assert f"kernel l0fast::cuda::(anonymous namespace)::{kernel}(" in done.stderr
    assert "\n  launch 1, grid (" in done.stderr


@pytest.mark.parametrize(
    "case", ["reverse", "twice", "collectives", "grid", "warp_exchange", "largest", "fresh_shared", "capture"]
)
def test_no_race_is_seen_in_a_right_kernel(watched_program, case):
    done = run(watched_program, case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("case", "kernel"),
    [
        ("missing_barrier", "reverse<false>"),
        ("missing_second_barrier", "twice<false>"),
        ("missing_fence", "count_blocks<false>"),
        ("shuffle_as_barrier", "warp_exchange<false>"),
        ("lost_update", "lost_update"),
        ("plain_read", "largest<false>"),
    ],
)
def test_races_are_seen(watched_program, case, kernel):
    done = run(watched_program, case)
    assert done.returncode in (1, 66), done.stderr  # 1: ended by the wrong result before the sanitizer's own status
    assert f"data race {EMULATOR / 'test_emulator.cpp'}" in done.stderr and f" in {kernel}\n" in done.stderr
