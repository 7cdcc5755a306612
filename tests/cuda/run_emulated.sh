#!/usr/bin/env bash
# Runs op tests on the CUDA kernels without a GPU: builds csrc/cuda with the headers of tests/cuda/emulator for the
# dispatch key CPU, in a copy of the tree where that library takes the place of _C, and runs the test files given (the
# op tests if none is).
#   tests/cuda/run_emulated.sh [--sanitize | --races] PYTHON [PYTEST ARGUMENTS]        (make cuda-emulate)
# --sanitize: with AddressSanitizer and UndefinedBehaviorSanitizer. --races: with ThreadSanitizer, which sees each
# device thread as a thread of its own; much slower, for a few tests (-k).
# L0FAST_EMULATED_SEED (order of blocks and threads), _SMS, _SHARED (bytes): see tests/cuda/emulator/README.md.
set -euo pipefail
mode=plain
case "$1" in --*) mode=${1#--} && shift ;; esac
python=$(realpath -s "$1")
shift
# Without test_gated_totals.py, test_calibration_epochs.py and test_calibration_step.py, whose float64 bounds fixed-point
# totals do not meet and whose unread NaNs the device refuses: tests/cuda has their like.
[ $# -gt 0 ] || set -- tests/cuda tests/test_{hard_concrete,l0_penalty,l0_penalties,gated_weight,batch_gates,second_order}.py
here=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$here"/{csrc,l0fast,tests,setup.py,cuda_toolkit.py,pyproject.toml} "$copy"
rm -f "$copy"/l0fast/_C*.so
cd "$copy"
bash tests/cuda/emulator/build.sh "$mode" "$python" l0fast/_C.abi3.so
library() { gcc -print-file-name="lib$1.so"; }
case $mode in
  sanitize)
    export LD_PRELOAD="$(library asan) $(library ubsan) $(library stdc++)"
    export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
    ;;
  races)
    export LD_PRELOAD="$(library tsan) $(library stdc++)"
    # Only the kernels: torch and Python were not compiled for this. The exit status is 66 where anything was found.
    export TSAN_OPTIONS="ignore_noninstrumented_modules=1 report_thread_leaks=0 history_size=4"
    ;;
esac
export PYTHONPATH="$copy" L0FAST_TEST_DEVICE=cpu
"$python" -c "import l0fast; assert l0fast.__file__.startswith('$copy'), l0fast.__file__"
# --capture=sys: an error in a kernel ends the process, and its message must not end in pytest's buffer.
"$python" -m pytest -q -p no:cacheprovider --capture=sys "$@"
