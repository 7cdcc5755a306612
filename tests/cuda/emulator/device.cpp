// Errors, device attributes, kernel attributes, the checks of a launch.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "engine.h"
#include "streams.h"

namespace emulator {
namespace {

constexpr int kMostShared = 227 * 1024, kReservedPerBlock = 1024, kThreadsPerMultiprocessor = 2048;

int from_environment(const char* name, int standard, int most) {
  const char* text = getenv(name);
  if (!text || !*text) return standard;
  char* end = nullptr;
  const long value = strtol(text, &end, 10);
  if (*end || value < 1 || value > most) {
    fprintf(stderr, "%s: expected an integer from 1 to %d, got %s\n", name, most, text);
    abort();
  }
  return static_cast<int>(value);
}

std::mutex attributes_mutex;
std::map<const void*, int> dynamic_shared;  // what cudaFuncSetAttribute allowed

int allowed_shared(const void* kernel) {
  const std::lock_guard<std::mutex> lock(attributes_mutex);
  const auto found = dynamic_shared.find(kernel);
  return found == dynamic_shared.end() ? device().default_shared() : found->second;
}

}  // namespace

const Device& device() {
  static const Device d = {from_environment("L0FAST_EMULATED_SMS", 4, 1024),
                           from_environment("L0FAST_EMULATED_SHARED", kMostShared, kMostShared)};
  return d;
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > device().most_shared)
    return failed(cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(attributes_mutex);
  dynamic_shared[kernel] = value;
  return cudaSuccess;
}

cudaError_t get_attributes(cudaFuncAttributes* attributes, const void* kernel) {
  *attributes = {0, 0, 0, 1024, 32, allowed_shared(kernel)};
  return cudaSuccess;
}

cudaError_t occupancy(int* blocks, const void* kernel, int threads, size_t shared) {
  if (threads < 1 || threads > 1024) return failed(cudaErrorInvalidValue);
  const int memory = device().most_shared + kReservedPerBlock;
  const int fit = memory / (static_cast<int>(shared) + kReservedPerBlock);
  const bool launches = shared <= static_cast<size_t>(allowed_shared(kernel));
  *blocks = launches ? std::min({32, fit, kThreadsPerMultiprocessor / threads}) : 0;
  return cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
  const dim3 &g = config.gridDim, &b = config.blockDim;
  const bool grid = g.x >= 1 && g.x <= 0x7fffffffu && g.y >= 1 && g.y <= 65535 && g.z >= 1 && g.z <= 65535;
  const bool block_shape = b.x >= 1 && b.x <= 1024 && b.y >= 1 && b.y <= 1024 && b.z >= 1 && b.z <= 64;
  if (!grid || !block_shape || uint64_t{b.x} * b.y * b.z > 1024) return failed(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > static_cast<size_t>(allowed_shared(kernel))) return failed(cudaErrorInvalidValue);
  if (config.numAttrs) return failed(cudaErrorNotSupported);
  const Launch shape{kernel, g, b, config.dynamicSmemBytes, std::move(thread)};
  return failed(enqueue(config.stream, [shape] { run_grid(shape); }));
}

}  // namespace emulator

using emulator::device;
using emulator::failed;

cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  return index == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int index) {
  if (index != 0) return failed(cudaErrorInvalidDevice);
  *p = {};
  snprintf(p->name, sizeof(p->name), "emulated");
  p->sharedMemPerBlock = static_cast<size_t>(device().default_shared());
  p->sharedMemPerBlockOptin = static_cast<size_t>(device().most_shared);
  p->sharedMemPerMultiprocessor = p->sharedMemPerBlockOptin + emulator::kReservedPerBlock;
  p->totalGlobalMem = size_t{1} << 33;
  p->major = 9;
  p->multiProcessorCount = device().multiprocessors;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = emulator::kThreadsPerMultiprocessor;
  p->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, index)) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return *value = p.maxThreadsPerBlock, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return *value = static_cast<int>(p.sharedMemPerBlock), cudaSuccess;
    case cudaDevAttrWarpSize:
      return *value = p.warpSize, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      return *value = p.multiProcessorCount, cudaSuccess;
    case cudaDevAttrL2CacheSize:
      return *value = p.l2CacheSize, cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return *value = p.maxThreadsPerMultiProcessor, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = p.major, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = p.minor, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return *value = static_cast<int>(p.sharedMemPerMultiprocessor), cudaSuccess;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return *value = 65536, cudaSuccess;
    case cudaDevAttrCooperativeLaunch:
      return *value = 0, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = static_cast<int>(p.sharedMemPerBlockOptin), cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}
