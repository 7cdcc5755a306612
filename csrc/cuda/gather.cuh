// The backward pass: g_i = sum_k M_ki r_k over the open columns, handed record by record to what is done with it.
#pragma once

#include "cuda/scatter.cuh"

namespace l0fast::cuda {

template <typename T, typename Row>
struct Gather {
  Columns<T, Row> matrix;
  LongColumns long_columns;
  const T* gates;   // [n_records]
  const T* slopes;  // [n_targets] r
  int64_t resident;
};

// r of a block: the resident ones in its shared memory.
template <typename T>
class BlockSlopes {
 public:
  __device__ BlockSlopes(const T* slopes, int64_t resident)
      : slopes_(slopes), resident_(resident), here_(dynamic_shared<T>()) {
    for (int64_t j = threadIdx.x; j < resident; j += blockDim.x) here_[j] = slopes[j];
    __syncthreads();
  }

  __device__ __forceinline__ T at(int64_t row) const { return row < resident_ ? here_[row] : __ldg(slopes_ + row); }

 private:
  const T* slopes_;
  int64_t resident_;
  T* here_;  // [resident]
};

// The sum over kLanes neighbouring lanes, in each of them.
template <int kLanes, typename T>
__device__ __forceinline__ T lanes_sum(T x) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// g of the tile's records, each in its own lane; 0 for closed ones.
template <int kLanes, typename T, typename Row>
__device__ __forceinline__ T gather_tile(const Gather<T, Row>& a, const BlockSlopes<T>& slopes, int64_t i, T gate) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Columns<T, Row>& m = a.matrix;
  Column column{0, 0};
  if (gate != T(0)) column = {m.indptr[i], m.indptr[i + 1]};
  const bool mine = column.length() > 0 && column.length() <= kLongColumn;
  const unsigned open = __ballot_sync(kAllLanes, mine);
  const int rank = __popc(open & ((1u << lane) - 1));
  T own = 0;
  for_each_open<kLanes>(open, [&](int first, int source, bool active) {
    const Column c{__shfl_sync(kAllLanes, column.begin, source), __shfl_sync(kAllLanes, column.end, source)};
    T sum = 0;
    if (active)
      for_each_nonzero(m, c, lane % kLanes, kLanes, [&](int64_t row, T value) { sum += value * slopes.at(row); });
    sum = lanes_sum<kLanes>(sum);
    const T mine_now = __shfl_sync(kAllLanes, sum, (rank - first) * kLanes & (kWarp - 1));
    if (mine && rank >= first && rank < first + kWarp / kLanes) own = mine_now;
  });
  if (column.length() > kLongColumn) {
    double sum = 0;
    const int64_t slot = a.long_columns.slot[i], chunks = long_chunks(column.length());
    for (int64_t c = 0; c < chunks; ++c) sum += a.long_columns.gathered[slot + c];
    own = static_cast<T>(sum);
  }
  return own;
}

// Before the tiles: the chunks of the long columns, a warp to each.
template <typename T, typename Row>
__global__ void __launch_bounds__(kThreads) gather_long_kernel(Gather<T, Row> a, const Cursor* cursor) {
  if (cursor->stopped) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t chunk = first_tile(); chunk < a.long_columns.chunks; chunk += tile_stride()) {
    const int64_t i = a.long_columns.column[chunk], begin = a.long_columns.begin[chunk];
    double sum = 0;
    if (a.gates[i] != T(0)) {
      const Column c{begin, chunk_end(begin, a.matrix.indptr[i + 1])};
      for_each_nonzero(a.matrix, c, lane, kWarp, [&](int64_t row, T value) {
        sum += static_cast<double>(value) * static_cast<double>(__ldg(a.slopes + row));
      });
    }
    sum = warp_sum(sum);
    if (lane == 0) a.long_columns.gathered[chunk] = sum;
  }
}

// Finish is called as finish(i, gate, g) for every record, by its lane.
template <typename T, typename Row, int kLanes, typename Finish>
__global__ void __launch_bounds__(kMostThreads, 1) gather_kernel(Gather<T, Row> a, Finish finish) {
  if (finish.stopped()) return;
  const BlockSlopes<T> slopes(a.slopes, a.resident);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  typename Finish::Own own = finish.begin();
  for (int64_t tile = first_tile(); tile * kTile < a.matrix.n_records; tile += tile_stride()) {
    const int64_t i = tile * kTile + lane;
    const bool inside = i < a.matrix.n_records;
    const T gate = inside ? a.gates[i] : T(0);
    const T g = gather_tile<kLanes>(a, slopes, i, gate);
    if (inside) finish.record(i, gate, g, own);
  }
  finish.end(own);
}

}  // namespace l0fast::cuda
