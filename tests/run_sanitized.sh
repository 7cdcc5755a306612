#!/usr/bin/env bash
# Builds a copy of the tree with AddressSanitizer and UndefinedBehaviorSanitizer and runs the op and packer tests in it.
#   tests/run_sanitized.sh PYTHON        (make sanitize)
set -euo pipefail
python=$(realpath -s "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$here"/{csrc,l0fast,tests,setup.py,cuda_toolkit.py,pyproject.toml,LICENSE,README.md} "$copy"
rm -rf "$copy"/l0fast/*.so
cd "$copy"
# No clones: their resolvers run while the library loads, before the sanitizer is ready.
export L0FAST_EXTRA_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1 -DL0FAST_NO_CLONES"
L0FAST_CUDA=0 "$python" setup.py -q build_ext --inplace
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so)"
# Python and torch keep memory until exit: leaks are not what is looked for. PYTHONPATH: this copy, not the installed one.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$copy"
"$python" -c "import l0fast; assert l0fast.__file__.startswith('$copy'), l0fast.__file__"
"$python" -m pytest -q -p no:cacheprovider tests/test_hard_concrete.py tests/test_l0_penalty.py tests/test_l0_penalties.py tests/test_gated_weight.py \
  tests/test_batch_gates.py tests/test_gated_totals.py tests/test_calibration_epochs.py tests/test_matrix*.py -k "not compile"
