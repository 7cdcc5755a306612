// How a warp works through the columns of its tile: those of open records, several at a time.
#pragma once

#include "cuda/columns.cuh"

namespace l0fast::cuda {

// The place of the n-th set bit, n from 0; meaningless where there are not so many.
__device__ __forceinline__ int place_of_bit(unsigned mask, int n) {
  int place = 0;
#pragma unroll
  for (int width = 16; width > 0; width /= 2) {
    const int below = __popc((mask >> place) & ((1u << width) - 1));
    if (n >= below) {
      n -= below;
      place += width;
    }
  }
  return place;
}

struct Column {
  int64_t begin, end;  // of its nonzeros

  __device__ int64_t length() const { return end - begin; }
};

// Calls fn(k, valid) for the nonzeros of the chunk, four of a lane's at a time so that their loads are under way
// together: fn gets the four numbers and which of them exist.
template <typename T, typename Row, typename F>
__device__ __forceinline__ void for_each_nonzero(const Columns<T, Row>& m, const Column& c, int place, int lanes,
                                                 const F& fn) {
  constexpr int kAtOnce = 4;
  for (int64_t k = c.begin + place; k < c.end; k += kAtOnce * lanes) {
    Row row[kAtOnce];
    T value[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const bool inside = k + u * lanes < c.end;
      row[u] = inside ? __ldg(m.rows + k + u * lanes) : Row(0);
      value[u] = inside ? __ldg(m.values + k + u * lanes) : T(0);
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u)
      if (k + u * lanes < c.end) fn(static_cast<int64_t>(row[u]), value[u]);
  }
}

// The open columns of a tile, kLanes lanes to each: calls fn(source, active) with the lane that owns the column, in all
// lanes together; active is false in the lanes that have none left. `open` is the same in all lanes.
template <int kLanes, typename F>
__device__ __forceinline__ void for_each_open(unsigned open, const F& fn) {
  constexpr int kAtOnce = kWarp / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int sources = place_of_bit(open, lane);  // of the lane-th open column
  const int count = __popc(open);
  for (int first = 0; first < count; first += kAtOnce) {
    const int rank = first + lane / kLanes;
    const int source = __shfl_sync(kAllLanes, sources, rank % kWarp);
    fn(first, source, rank < count);
  }
}

__device__ __forceinline__ int64_t first_tile() {
  return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
}

__device__ __forceinline__ int64_t tile_stride() {
  return static_cast<int64_t>(gridDim.x) * (blockDim.x / kWarp);
}

}  // namespace l0fast::cuda
