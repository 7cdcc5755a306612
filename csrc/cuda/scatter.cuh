// The forward pass: totals += w_i M_i over the open columns, in fixed point (math/fixed_point.h).
#pragma once

#include "cuda/warp_columns.cuh"
#include "math/link.h"

namespace l0fast::cuda {

// What a pass needs to know that changes from epoch to epoch.
struct Cursor {
  int stopped;   // the loss left the finite numbers: nothing more is to be done
  int broken;    // a weight is not finite
  int exponent;  // 2^exponent is above every weight before its gate
  int next_exponent;
};

template <typename T, typename Row>
struct Scatter {
  Columns<T, Row> matrix;
  LongColumns long_columns;
  const T *log_weight, *gates;  // [n_records]
  Link link;
  const int* exponents;  // [n_targets]
  int bits;
  int64_t resident;
  Fixed* totals;  // [n_targets]
  Cursor* cursor;
};

template <typename T>
__device__ __forceinline__ T linked(Link link, T x) {
  return link == Link::kExp ? l0fast::linked<Link::kExp>(x) : x;
}

__device__ __forceinline__ void add_fixed(Fixed* total, Fixed x) {
  atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(x));
}

// The same on a sum kept as two words: shared memory adds 32-bit integers natively, 64-bit ones in a loop.
__device__ __forceinline__ void add_fixed(unsigned* low, unsigned* high, Fixed x) {
  const unsigned long long word = static_cast<unsigned long long>(x);
  const unsigned added = static_cast<unsigned>(word), before = atomicAdd(low, added);
  const unsigned carried = static_cast<unsigned>(word >> 32) + (before + added < before ? 1u : 0u);
  if (carried != 0) atomicAdd(high, carried);
}

__device__ __forceinline__ Fixed nearest(float x) {
  return __float2ll_rn(x);
}
__device__ __forceinline__ Fixed nearest(double x) {
  return __double2ll_rn(x);
}

// The totals of a block: the resident ones in its shared memory, the others in global memory.
template <typename T, typename Row>
class BlockTotals {
 public:
  __device__ explicit BlockTotals(const Scatter<T, Row>& s)
      : s_(s),
        low_(dynamic_shared<unsigned>()),
        high_(low_ + s.resident),
        exponent_(reinterpret_cast<int16_t*>(high_ + s.resident)) {
    for (int64_t j = threadIdx.x; j < s.resident; j += blockDim.x) {
      low_[j] = high_[j] = 0;
      exponent_[j] = static_cast<int16_t>(row_exponent<T>(s.exponents[j]));
    }
    __syncthreads();
  }

  __device__ void add(int64_t row, T value, T weight) const {
    const bool here = row < s_.resident;
    const int exponent = here ? exponent_[row] : row_exponent<T>(__ldg(s_.exponents + row));
    const Fixed x = nearest(value * power_of_two<T>(-exponent) * weight);
    if (here) {
      add_fixed(low_ + row, high_ + row, x);
    } else {
      add_fixed(s_.totals + row, x);
    }
  }

  __device__ void flush() const {
    __syncthreads();
    for (int64_t j = threadIdx.x; j < s_.resident; j += blockDim.x) {
      const Fixed x = static_cast<Fixed>(static_cast<unsigned long long>(high_[j]) << 32 | low_[j]);
      if (x != 0) add_fixed(s_.totals + j, x);
    }
  }

 private:
  const Scatter<T, Row>& s_;
  unsigned *low_, *high_;  // [resident]
  int16_t* exponent_;      // [resident]
};

// w of an open record, ready for the fixed point. One that is not finite is noted: no integer could carry it.
template <typename T, typename Row>
__device__ __forceinline__ T open_weight(const Scatter<T, Row>& s, int64_t i, T gate, int exponent) {
  const T weight = linked(s.link, s.log_weight[i]) * gate;
  if (!(weight - weight == T(0))) {
    s.cursor->broken = 1;
    return T(0);
  }
  return scaled_weight(weight, exponent, s.bits);
}

template <typename T, typename Row, int kLanes>
__global__ void __launch_bounds__(kMostThreads, 1) scatter_kernel(Scatter<T, Row> s) {
  if (s.cursor->stopped) return;
  const BlockTotals<T, Row> totals(s);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, exponent = s.cursor->exponent;
  const Columns<T, Row>& m = s.matrix;
  for (int64_t tile = first_tile(); tile * kTile < m.n_records; tile += tile_stride()) {
    const int64_t i = tile * kTile + lane;
    Column column{0, 0};
    T weight = 0;
    if (i < m.n_records) {
      const T gate = s.gates[i];
      if (gate != T(0)) {
        column = {m.indptr[i], m.indptr[i + 1]};
        weight = open_weight(s, i, gate, exponent);
      }
    }
    const bool mine = column.length() > 0 && column.length() <= kLongColumn;
    for_each_open<kLanes>(__ballot_sync(kAllLanes, mine), [&](int, int source, bool active) {
      const Column c{__shfl_sync(kAllLanes, column.begin, source), __shfl_sync(kAllLanes, column.end, source)};
      const T w = __shfl_sync(kAllLanes, weight, source);
      if (active)
        for_each_nonzero(m, c, lane % kLanes, kLanes, [&](int64_t row, T value) { totals.add(row, value, w); });
    });
  }
  for (int64_t chunk = first_tile(); chunk < s.long_columns.chunks; chunk += tile_stride()) {
    const int64_t i = s.long_columns.column[chunk], begin = s.long_columns.begin[chunk];
    const T gate = s.gates[i];
    if (gate == T(0)) continue;
    const T weight = open_weight(s, i, gate, exponent);
    const Column c{begin, chunk_end(begin, m.indptr[i + 1])};
    for_each_nonzero(m, c, lane, kWarp, [&](int64_t row, T value) { totals.add(row, value, weight); });
  }
  totals.flush();
}

// An exponent above every weight before its gate: what the first epoch starts from.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    bound_weights(const T* log_weight /* [count] */, int64_t count, Link link, int* exponent /* [1] */) {
  int most = kLeastExponent;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
    most = larger(most, exponent_above(linked(link, log_weight[i])));
  most = warp_max(most);
  if (threadIdx.x % kWarp == 0) atomicMax(exponent, most);
}

}  // namespace l0fast::cuda
