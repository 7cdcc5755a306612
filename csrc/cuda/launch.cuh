// What every launcher does: the tensor's device and its current stream, the size of the grid, the check after a launch.
//
// Kernels start through launch() alone and reach dynamic shared memory through dynamic_shared() alone:
// tests/cuda/emulator runs the same sources on a CPU that way.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

#include "checks.h"

// The dispatch key of these kernels. The emulator takes CPU.
#ifndef L0FAST_CUDA_KEY
#define L0FAST_CUDA_KEY CUDA
#endif

namespace l0fast::cuda {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::ostringstream text;
  text << "l0fast: " << what << ": " << cudaGetErrorName(error) << ": " << cudaGetErrorString(error);
  throw std::runtime_error(text.str());
}

// Makes a tensor's device the current one as long as it lives.
class Device {
 public:
  explicit Device(const Tensor& t) : index_(t.get_device_index()), guard_(index_) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

  int32_t attribute(cudaDeviceAttr which) const {
    int value = 0;
    int device = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  }

  int64_t multiprocessors() const { return attribute(cudaDevAttrMultiProcessorCount); }

  // The same device, another stream: what a graph is captured on.
  Device on(cudaStream_t stream) const { return Device(index_, stream); }

 private:
  Device(int32_t index, cudaStream_t stream) : index_(index), guard_(index), stream_(stream) {}

  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// Sets bytes, in the order of the stream. Without any there may be no pointer either.
inline void fill_bytes(const Device& device, void* begin, int byte, int64_t count) {
  if (count == 0) return;
  check_cuda(cudaMemsetAsync(begin, byte, static_cast<size_t>(count), device.stream()), "cudaMemsetAsync");
}

struct Grid {
  int64_t blocks;
  int64_t threads;
  int64_t shared = 0;  // bytes of dynamic shared memory
};

template <typename... Params, typename... Args>
void launch(const Device& device, void (*kernel)(Params...), const Grid& grid, Args&&... args) {
  if (grid.blocks == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared);
  config.stream = device.stream();
  check_cuda(cudaLaunchKernelEx(&config, kernel, Params(args)...), "kernel launch");
}

// The block's dynamic shared memory, 16-byte aligned.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char l0fast_shared[];
  return reinterpret_cast<T*>(l0fast_shared);
}

}  // namespace l0fast::cuda
