// What the cases of test_emulator.cpp and test_emulator_host.cpp share.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

namespace l0fast::cuda {

inline void check(bool good, const char* what) {
  if (good) return;
  printf("wrong: %s\n", what);
  exit(1);
}

template <typename... Params, typename... Args>
cudaError_t start(cudaStream_t stream, unsigned blocks, unsigned threads, size_t shared, void (*kernel)(Params...),
                  Args... args) {
  cudaLaunchConfig_t config;
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, Params(args)...);
}

template <typename... Params, typename... Args>
void run(unsigned blocks, unsigned threads, size_t shared, void (*kernel)(Params...), Args... args) {
  check(start(nullptr, blocks, threads, shared, kernel, args...) == cudaSuccess, "launch");
}

template <typename T>
T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char l0fast_shared[];
  return reinterpret_cast<T*>(l0fast_shared);
}

// test_emulator_host.cpp
void test_launch_limits();
void test_small_device();
void test_capture();
void test_capture_errors();
void test_intrinsics();

}  // namespace l0fast::cuda
