#!/usr/bin/env bash
# compute-sanitizer over the small tests of the CUDA kernels: memcheck (bad accesses) and racecheck (shared memory).
#   tests/cuda/run_sanitizer.sh [PYTHON] [tool ...]      tools: memcheck racecheck (default), initcheck, synccheck
# Needs a GPU, compute-sanitizer on the PATH and the built extension (L0FAST_CUDA=1 python setup.py build_ext --inplace).
# L0FAST_SANITIZER_SECONDS (default 420) is the limit of each tool: it slows kernels down a hundred times.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
shift || true
tools=("$@")
[ ${#tools[@]} -gt 0 ] || tools=(memcheck racecheck)
command -v compute-sanitizer > /dev/null || { echo "run_sanitizer.sh: compute-sanitizer is not on the PATH" >&2; exit 2; }
"$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || {
  echo "run_sanitizer.sh: no CUDA device here (torch.cuda.is_available() is False)" >&2
  exit 2
}
# No caching: each tensor is an allocation of its own, so that an access beyond its end is seen.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1 PYTHONPATH="$PWD" L0FAST_TEST_DEVICE=cuda
# Without the long ones, the compiled ones (other people's kernels) and the graphs (they need the caching allocator).
small="not large and not compile and not graph and not replay and not hundred and not twice and not sparse_regression"
small="$small and not training and not fit_meets and not current_stream"
tests=(tests/cuda/test_cuda_hard_concrete.py tests/cuda/test_cuda_penalties.py tests/cuda/test_cuda_gated_weight.py
  tests/cuda/test_cuda_gated_totals.py tests/cuda/test_cuda_calibration_epochs.py)
# Only our kernels are instrumented. The option's name differs between versions; without it all kernels are, slower.
help=$(compute-sanitizer --help 2>&1 || true)
ours=()
for option in --kernel-name --kernel-regex --filter; do
  if grep -q -- "$option" <<< "$help"; then
    ours=("$option" kns=l0fast)
    break
  fi
done
failed=()
for tool in "${tools[@]}"; do
  echo "== compute-sanitizer --tool $tool"
  options=(--tool "$tool" --error-exitcode 9 --print-limit 20 "${ours[@]}")
  timeout "${L0FAST_SANITIZER_SECONDS:-420}" compute-sanitizer "${options[@]}" \
    "$python" -m pytest -q -x -p no:cacheprovider -k "$small" "${tests[@]}" || failed+=("$tool: exit code $?")
done
[ ${#failed[@]} -eq 0 ] || { echo "run_sanitizer.sh: not clean: ${failed[*]}" >&2; exit 1; }
echo "run_sanitizer.sh: ${tools[*]} clean"
