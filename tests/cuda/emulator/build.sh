#!/usr/bin/env bash
# Builds csrc/library.cpp and csrc/cuda/*.cu against the emulator into one library; from the root of a tree.
#   tests/cuda/emulator/build.sh PYTHON LIBRARY        (CXX, CXXFLAGS as usual; JOBS, default 2)
set -euo pipefail
python=$1 library=$2
emulator=tests/cuda/emulator
torch=$("$python" -c "import os, torch; print(os.path.dirname(torch.__file__))")
version=$(sed -n 's/.*TORCH_TARGET_VERSION=\(0x[0-9a-f]*\).*/\1/p' setup.py)
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
# -fno-extern-tls-init: shared memory is thread_local without constructors; nothing to run before its first use.
flags="-std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-extern-tls-init -Wall -Wextra \
  -Wno-unused-parameter -Wno-unknown-pragmas -DUSE_CUDA -DL0FAST_CUDA_KEY=CPU -DTORCH_TARGET_VERSION=$version \
  -I$emulator -Icsrc -isystem $torch/include -isystem $torch/include/torch/csrc/api/include ${CXXFLAGS:-}"
ls csrc/library.cpp csrc/cuda/*.cu "$emulator"/*.cpp | grep -v "$emulator/test_" |
  xargs -P "${JOBS:-2}" -I SOURCE sh -c "${CXX:-g++} $flags -x c++ -c SOURCE -o $objects/\$(echo SOURCE | tr / _).o"
# shellcheck disable=SC2086
${CXX:-g++} -shared -Wl,--no-undefined ${CXXFLAGS:-} "$objects"/*.o -L"$torch/lib" -ltorch_cpu -ldl -lpthread -o "$library"
