// Runs the one case that is named: a kernel that is right, checked against plain C++, or one with a planted error.
// Exit status 0: as expected; 1: a wrong result. An error that the emulator sees ends the process. See
// test_emulator.py.
#include "test_emulator.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

namespace l0fast::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffu;

// out[i] = the block's elements backwards. kBarrier false: the planted error.
template <bool kBarrier>
__global__ void reverse(const int* in, int* out) {
  int* const shared = dynamic_shared<int>();
  const unsigned t = threadIdx.x, first = blockIdx.x * blockDim.x;
  shared[t] = in[first + t];
  if (kBarrier) __syncthreads();
  out[first + t] = shared[blockDim.x - 1 - t];
}

template <bool kBarrier>
void test_reverse() {
  std::vector<int> in(7 * 96), out(in.size());
  std::iota(in.begin(), in.end(), 0);
  run(7, 96, 96 * sizeof(int), reverse<kBarrier>, in.data(), out.data());
  for (int i = 0; i < 7 * 96; ++i) check(out[i] == i / 96 * 96 + 95 - i % 96, "reverse");
}

// A static array that is used a second time. kBarrier false: its last readers may come after the next writer.
template <bool kBarrier>
__global__ void twice(int* out) {
  __shared__ int value;
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) value = round;
    __syncthreads();
    out[round * blockDim.x + threadIdx.x] = value;
    if (kBarrier) __syncthreads();
  }
}

template <bool kBarrier>
void test_twice() {
  std::vector<int> out(2 * 64);
  run(1, 64, 0, twice<kBarrier>, out.data());
  for (int i = 0; i < 128; ++i) check(out[i] == i / 64, "a value read a round late");
}

__global__ void collectives(int* wrong) {
  const int lane = static_cast<int>(threadIdx.x % 32), t = static_cast<int>(threadIdx.x);
  const auto expect = [&](bool good) { atomicAdd(wrong, good ? 0 : 1); };
  expect(__shfl_sync(kAll, 10 * lane, 5) == 50);
  expect(__shfl_sync(kAll, 10.5 * lane, 3, 8) == 10.5 * (lane / 8 * 8 + 3));
  expect(__shfl_up_sync(kAll, lane, 3) == (lane < 3 ? lane : lane - 3));
  expect(__shfl_down_sync(kAll, 1.0f * lane, 4, 16) == (lane % 16 > 11 ? lane : lane + 4));
  expect(__shfl_xor_sync(kAll, int64_t{1} << lane, 17) == int64_t{1} << (lane ^ 17));
  expect(__ballot_sync(kAll, lane % 3 == 0) == 0x49249249u);
  expect(__any_sync(kAll, lane == 31) && !__any_sync(kAll, 0));
  expect(__all_sync(kAll, 1) && !__all_sync(kAll, lane != 7));
  // Two halves of a warp with masks of their own.
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  int sum = lane;
  for (int d = 8; d; d /= 2) sum += __shfl_xor_sync(half, sum, d);
  expect(sum == (lane < 16 ? 120 : 376));
  __syncwarp();
  expect(__syncthreads_count(t % 2) == static_cast<int>(blockDim.x) / 2);
  expect(__syncthreads_or(t == 9) && !__syncthreads_and(t != 9));
}

void test_collectives() {
  int wrong = 0;
  run(3, 128, 0, collectives, &wrong);
  check(wrong == 0, "a collective");
}

// Blocks add in any order; the last one sees all sums. order: the blocks as they came. kFence false: the planted error.
template <bool kFence>
__global__ void count_blocks(unsigned* finished, int* order, float* sums, float* total) {
  __shared__ unsigned before;
  atomicAdd(total, 1.0f);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = 1;
    if (kFence) __threadfence();
    order[before = atomicInc(finished, gridDim.x - 1)] = static_cast<int>(blockIdx.x);
  }
  __syncthreads();
  if (before != gridDim.x - 1 || threadIdx.x != 0) return;
  if (kFence) __threadfence();
  for (unsigned b = 0; b < gridDim.x; ++b) atomicAdd(total, sums[b]);
}

template <bool kFence>
void test_grid() {
  unsigned finished = 0;
  float total = 0, sums[50];
  std::vector<int> order(50), sorted(50);
  run(50, 40, 0, count_blocks<kFence>, &finished, order.data(), sums, &total);
  check(finished == 0 && total == 2050, "atomics");
  std::iota(sorted.begin(), sorted.end(), 0);
  check(order != sorted, "the order of blocks is not shuffled");
  check(std::is_permutation(order.begin(), order.end(), sorted.begin()), "a block ran twice or never");
}

__global__ void read_unwritten(float* out) {
  __shared__ float fixed[8];
  out[2 * blockIdx.x] = fixed[threadIdx.x];
  out[2 * blockIdx.x + 1] = dynamic_shared<float>()[threadIdx.x];
  fixed[threadIdx.x] = dynamic_shared<float>()[threadIdx.x] = 1;
}

void test_fresh_shared() {
  float out[10];
  run(5, 1, 64, read_unwritten, out);
  for (const float x : out) check(x != x, "shared memory keeps what the block before wrote");
}

// Errors that only a build with ThreadSanitizer sees: device threads are switched at barriers alone.
__global__ void lost_update(float* total) {
  if (threadIdx.x == 0) *total += 1;
}

// A shuffle makes lanes meet, but orders no memory accesses: __syncwarp does. kSync false: the planted error.
template <bool kSync>
__global__ void warp_exchange(int* out) {
  __shared__ int values[32];
  const int lane = static_cast<int>(threadIdx.x);
  values[lane] = __shfl_xor_sync(kAll, lane, 1);
  if (kSync) __syncwarp();
  const int other = __shfl_sync(kAll, lane, 31 - lane);
  out[lane] = values[other];
}

template <bool kSync>
void test_warp_exchange() {
  int out[32];
  run(1, 32, 0, warp_exchange<kSync>, out);
  for (int lane = 0; lane < 32; ++lane) check(out[lane] == ((31 - lane) ^ 1), "warp exchange");
}

// A stale value costs an atomic that changes nothing, if the read is volatile. kVolatile false: the planted error.
template <bool kVolatile>
__global__ void largest(int* most) {
  const int mine = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  using Read = std::conditional_t<kVolatile, volatile int, int>;
  if (mine > *static_cast<Read*>(most)) atomicMax(most, mine);
}

template <bool kVolatile>
void test_largest() {
  int most = -1;
  run(4, 64, 0, largest<kVolatile>, &most);
  check(most == 255, "largest");
}

__global__ void write_behind(size_t bytes, size_t behind) {
  dynamic_shared<char>()[bytes + behind] = 0;
}

void test_behind() {
  run(3, 1, 100, write_behind, 100, 0);
}

void test_far_behind() {
  run(3, 1, 100, write_behind, 100, 20000);
}

__global__ void divergent_barrier() {
  if (threadIdx.x < 40) __syncthreads();
  if (threadIdx.x >= 40) __syncwarp(threadIdx.x < 64 ? 0xffffff00u : kAll);
  if (threadIdx.x >= 40) __shfl_sync(kAll, 1, 0);
}

__global__ void early_exit() {
  if (threadIdx.x == 33) return;
  __syncthreads();
}

__global__ void divergent_shuffle(int* out) {
  if (threadIdx.x % 32 < 20) *out = __shfl_xor_sync(kAll, 1, 1);
}

__global__ void outside_mask(int* out) {
  if (threadIdx.x < 16) *out = __shfl_sync(0xffffu, 1, 20);
}

__global__ void not_in_mask() {
  __syncwarp(0x7fffffffu);
}

}  // namespace
}  // namespace l0fast::cuda

int main(int count, char** names) {
  using namespace l0fast::cuda;
  static int out = 0;
  const std::map<std::string, std::function<void()>> cases = {
      {"reverse", test_reverse<true>},
      {"twice", test_twice<true>},
      {"collectives", test_collectives},
      {"grid", test_grid<true>},
      {"warp_exchange", test_warp_exchange<true>},
      {"largest", test_largest<true>},
      {"plain_read", test_largest<false>},
      {"missing_fence", test_grid<false>},
      {"shuffle_as_barrier", test_warp_exchange<false>},
      {"lost_update", [] { run(8, 32, 0, lost_update, reinterpret_cast<float*>(&out)); }},
      {"fresh_shared", test_fresh_shared},
      {"launch_limits", test_launch_limits},
      {"small_device", test_small_device},
      {"capture", test_capture},
      {"capture_errors", test_capture_errors},
      {"intrinsics", test_intrinsics},
      {"missing_barrier", test_reverse<false>},
      {"missing_second_barrier", test_twice<false>},
      {"divergent_barrier", [] { run(2, 96, 0, divergent_barrier); }},
      {"early_exit", [] { run(2, 64, 0, early_exit); }},
      {"divergent_shuffle", [] { run(2, 64, 0, divergent_shuffle, &out); }},
      {"outside_mask", [] { run(2, 32, 0, outside_mask, &out); }},
      {"not_in_mask", [] { run(1, 32, 0, not_in_mask); }},
      {"missing_lanes", [] { run(1, 40, 0, collectives, &out); }},
      {"behind", test_behind},
      {"far_behind", test_far_behind},
  };
  if (count != 2 || !cases.count(names[1])) return 2;
  cases.at(names[1])();
  return 0;
}
