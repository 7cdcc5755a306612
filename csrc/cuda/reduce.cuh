// Sums in a fixed order, whatever the order in which blocks run: the same bits run after run.
#pragma once

#include "cuda/launch.cuh"

namespace l0fast::cuda {

constexpr int kThreads = 256;       // of a block, unless a plan says otherwise
constexpr int kMostThreads = 1024;  // of any block
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// The sum over a warp, in every lane.
template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

__device__ __forceinline__ int larger(int a, int b) {
  return a > b ? a : b;
}

// The most of a warp, in every lane.
__device__ __forceinline__ int warp_max(int x) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x = larger(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}

// The sum over a block, in thread 0. All threads call it.
template <typename T>
__device__ __forceinline__ T block_sum(T x) {
  __shared__ T sums[kMostThreads / kWarp];
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  x = warp_sum(x);
  __syncthreads();  // the array may still be read by the call before
  if (lane == 0) sums[warp] = x;
  __syncthreads();
  if (warp != 0) return x;
  return warp_sum(lane < blockDim.x / kWarp ? sums[lane] : T(0));
}

// Where the blocks of a grid leave their sums, and how many have: in one buffer of doubles.
struct Partials {
  double* sums;        // [blocks]
  unsigned* finished;  // [1], 0 before the launch

  static int64_t doubles(int64_t blocks) { return blocks + 1; }

  static Partials over(double* buffer, int64_t blocks) {
    return {buffer, reinterpret_cast<unsigned*>(buffer + blocks)};
  }
};

// A buffer for `blocks` sums on the tensor's device; the count of finished blocks is 0.
inline Tensor new_partials(const Device& device, const Tensor& like, int64_t blocks) {
  Tensor buffer = torch::stable::new_empty(like, {Partials::doubles(blocks)}, ScalarType::Double);
  const Partials p = Partials::over(buffer.mutable_data_ptr<double>(), blocks);
  fill_bytes(device, p.finished, 0, sizeof(unsigned));
  return buffer;
}

// Whether this block is the last to arrive, of its grid or of `blocks` in several launches; it then sees what the
// others wrote. The count is 0 again afterwards, for the next launch.
__device__ __forceinline__ bool arrive_last(unsigned* finished, unsigned blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(finished, 1u) + 1 == blocks;
    if (last) *finished = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

// The sum of what the blocks left, one number each, in their order: in thread 0.
__device__ __forceinline__ double sum_of_blocks(const volatile double* sums, int64_t blocks) {
  double own = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) own += sums[b];
  return block_sum(own);
}

// Adds up what the threads of a grid hold, or of several grids launched one after another: `blocks` in all, `first` in
// the launches before this one. Thread 0 of the last block alone gets true and the total.
__device__ __forceinline__ bool grid_sum(double own, const Partials& partials, double* total, unsigned first,
                                         unsigned blocks) {
  const double sum = block_sum(own);
  if (threadIdx.x == 0) partials.sums[first + blockIdx.x] = sum;
  if (!arrive_last(partials.finished, blocks)) return false;
  *total = sum_of_blocks(partials.sums, blocks);
  return threadIdx.x == 0;
}

}  // namespace l0fast::cuda
