#!/usr/bin/env bash
# Builds csrc/library.cpp and csrc/cuda/*.cu against the emulator into one library; from the root of a tree.
#   tests/cuda/emulator/build.sh plain|sanitize|races PYTHON LIBRARY        (CXX; JOBS, default 2)
set -euo pipefail
mode=$1 python=$2 library=$3
emulator=tests/cuda/emulator
cxx=${CXX:-g++}
torch=$("$python" -c "import os, torch; print(os.path.dirname(torch.__file__))")
version=$(sed -n 's/.*TORCH_TARGET_VERSION=\(0x[0-9a-f]*\).*/\1/p' cuda_toolkit.py)
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
# -fno-extern-tls-init: shared memory is thread_local without constructors; nothing to run before its first use.
flags="-std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-extern-tls-init -Wall -Wextra \
  -Wno-unused-parameter -Wno-unknown-pragmas -DUSE_CUDA -DL0FAST_CUDA_KEY=CPU -DL0FAST_EMULATED \
  -include cuda_runtime.h -DTORCH_TARGET_VERSION=$version \
  -I$emulator -Icsrc -isystem $torch/include -isystem $torch/include/torch/csrc/api/include"
of_kernels='' of_emulator='' of_link=''
case $mode in
  plain) ;;
  sanitize)
    of_link='-fsanitize=address,undefined'
    of_kernels="$of_link -fno-sanitize-recover=undefined -fno-omit-frame-pointer" of_emulator=$of_kernels
    ;;
  # The emulator itself is what ThreadSanitizer must not see: it moves between the device threads.
  races)
    of_link='-fsanitize=thread'
    of_kernels="$of_link --param tsan-distinguish-volatile=1" of_emulator='-DL0FAST_EMULATED_RACES'
    ;;
  *) echo "build.sh: expected plain, sanitize or races, got $mode" >&2 && exit 2 ;;
esac
compile() { # FLAGS, sources on stdin
  xargs -P "${JOBS:-2}" -I SOURCE sh -c "$cxx $flags $1 -x c++ -c SOURCE -o $objects/\$(echo SOURCE | tr / _).o"
}
ls csrc/library.cpp csrc/cuda/*.cu | compile "$of_kernels"
ls "$emulator"/*.cpp | grep -v "$emulator/test_" | compile "$of_emulator"
# The dynamic shared memory ends the thread-local storage: its object comes last (races.h).
last=$objects/$(echo "$emulator/shared_memory.cpp.o" | tr / _)
# shellcheck disable=SC2046,SC2086
$cxx -shared -Wl,--no-undefined $of_link $(ls "$objects"/*.o | grep -vxF "$last") "$last" -L"$torch/lib" -ltorch_cpu \
  -ldl -lpthread -o "$library"
