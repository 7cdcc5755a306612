// Loops over [outer, gates, inner], in which each thread keeps the values of its gates; slice_plan.h deals them out.
// A functor has
//   values [gates]; kPack, the elements at once where the pointers are aligned; kRows, whether a plan may go over rows;
//   kSum and, without sums, template <int kW> __device__ void operator()(int64_t i, const C (&value)[kW]) const;
//   elements i .. i + kW - 1
// or with kSum, where the terms of a gate's elements are added up in double:
//   template <int kW> __device__ void operator()(int64_t i, const C (&value)[kW], C (&term)[kW]) const;
#pragma once

#include "cuda/reduce.cuh"
#include "cuda/slice_plan.h"
#include "cuda/vector_access.cuh"

namespace l0fast::cuda {

static_assert(kSliceThreads == kThreads && kSliceLanes == kWarp, "slice_plan.h counts in blocks and warps");

template <int kW, typename F>
__device__ __forceinline__ void apply(const F& f, int64_t i, const typename F::C (&value)[kW], double (&sum)[kW]) {
  if constexpr (F::kSum) {
    typename F::C term[kW];
    f.template operator()<kW>(i, value, term);
#pragma unroll
    for (int k = 0; k < kW; ++k) sum[k] += static_cast<double>(term[k]);
  } else {
    f.template operator()<kW>(i, value);
  }
}

// The last pack of an array whose length is no multiple of it, an element at a time. Not unrolled: one thread of the
// grid comes here.
template <int kW, typename F>
__device__ __forceinline__ void apply_rest(const F& f, const ColumnPlan& plan, int64_t i, double (&sum)[kW]) {
  for (int rest = 0; i + rest < plan.count; ++rest) {
    const int64_t gate = plan.gates.remainder(plan.inner.quotient(i + rest));
    const typename F::C value[1] = {static_cast<typename F::C>(f.values[gate])};
    double own[1] = {0};
    apply(f, i + rest, value, own);
#pragma unroll
    for (int k = 0; k < kW; ++k) sum[k] += k == rest ? own[0] : 0;
  }
}

// The values of the gates of columns column .. column + kW - 1.
template <int kW, typename F>
__device__ __forceinline__ void load_columns(const F& f, const ColumnPlan& plan, int64_t column,
                                             typename F::C (&value)[kW]) {
  const int64_t slice = plan.inner.quotient(column);
  int64_t gate = plan.gates.remainder(slice), place = column - slice * plan.inner.value;
#pragma unroll
  for (int k = 0; k < kW; ++k) {
    value[k] = static_cast<typename F::C>(f.values[gate]);
    if (++place < plan.inner.value) continue;
    place = 0;
    if (++gate == plan.gates.value) gate = 0;
  }
}

// The sums of the block's columns over its 8 warps, in their order -> partials.
template <int kW>
__device__ __forceinline__ void store_column_sums(const ColumnPlan& plan, const double (&sum)[kW],
                                                  double* __restrict__ partials) {
  __shared__ double sums[kSliceRows][kW][kSliceLanes];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kSliceLanes, lane = thread % kSliceLanes;
#pragma unroll
  for (int k = 0; k < kW; ++k) sums[warp][k][lane] = sum[k];
  __syncthreads();
  const int64_t first = plan.column<kW>(blockIdx.x, 0), chunk = plan.tiles.quotient(blockIdx.x);
  for (int c = thread; c < kW * kSliceLanes && first + c < plan.width; c += kSliceThreads) {
    double total = 0;
#pragma unroll
    for (int w = 0; w < kSliceRows; ++w) total += sums[w][c % kW][c / kW];
    partials[chunk * plan.width + first + c] = total;
  }
}

template <int kW, typename F>
__global__ void __launch_bounds__(kThreads) columns_kernel(ColumnPlan plan, F f, double* partials) {
  const int thread = static_cast<int>(threadIdx.x);
  const Walk walk = plan.walk<kW>(blockIdx.x, thread);
  double sum[kW] = {};
  if (walk.begin < walk.end) {
    typename F::C value[kW];
    load_columns(f, plan, plan.column<kW>(blockIdx.x, thread), value);
    int64_t i = walk.begin;
    for (; i + kW <= walk.end; i += walk.step) apply(f, i, value, sum);
    if (kW > 1 && i < walk.end) apply_rest(f, plan, i, sum);
  }
  if constexpr (F::kSum) store_column_sums(plan, sum, partials);
}

template <int kW, typename F>
__global__ void __launch_bounds__(kThreads) rows_kernel(RowPlan plan, F f, double* partials) {
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t unit = plan.unit(blockIdx.x, thread);
  const Walk walk = plan.walk<kW>(blockIdx.x, thread);
  typename F::C value[kW];
  value[0] = unit < plan.units ? static_cast<typename F::C>(f.values[plan.gate(unit)]) : 0;
#pragma unroll
  for (int k = 1; k < kW; ++k) value[k] = value[0];
  double sums[kW] = {};
  for (int64_t i = walk.begin; i < walk.end; i += walk.step) apply(f, i, value, sums);
  if constexpr (F::kSum) {
    double sum = 0;
#pragma unroll
    for (int k = 0; k < kW; ++k) sum += sums[k];
    if (plan.team > kWarp) {
      sum = block_sum(sum);
    } else {
      for (int distance = plan.team / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
    if ((thread & (plan.team - 1)) == 0 && unit < plan.units) partials[unit] = sum;
  }
}

// f(gate, the sum of its partial sums) for every gate.
template <typename F>
__global__ void __launch_bounds__(kThreads) gates_kernel(GatePlan plan, const double* __restrict__ partials, F f) {
  __shared__ double sums[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t gate = plan.gate(blockIdx.x, thread);
  const Walk walk = plan.walk(blockIdx.x, thread);
  double sum = 0;
#pragma unroll 4
  for (int64_t q = walk.begin; q < walk.end; q += walk.step) sum += partials[plan.place(gate, q)];
  for (int half = kThreads / 2; half >= plan.gates_of_block; half /= 2) {
    sums[thread] = sum;
    __syncthreads();
    if (thread < half) sum += sums[thread + half];
    __syncthreads();
  }
  if (thread < plan.gates_of_block && gate < plan.partials.gates) f(gate, sum);
}

template <typename F>
void for_each_slice(const Device& device, const SlicePlan& plan, const F& f, double* partials) {
  const Grid grid{plan.blocks(), kThreads};
  constexpr int kW = F::kPack;
  if constexpr (F::kRows) {
    if (!plan.over_columns)
      return launch(device, plan.pack == 1 ? rows_kernel<1, F> : rows_kernel<kW, F>, grid, plan.rows, f, partials);
  }
  launch(device, plan.pack == 1 ? columns_kernel<1, F> : columns_kernel<kW, F>, grid, plan.columns, f, partials);
}

// f over all elements, then finish(gate, double sum of the terms of its elements).
template <typename F, typename Finish>
void sum_each_slice(const Device& device, const SlicePlan& plan, const F& f, const Tensor& like, const Finish& finish) {
  Tensor partials = torch::stable::new_empty(like, {count_partials(plan)}, ScalarType::Double);
  double* sums = partials.mutable_data_ptr<double>();
  for_each_slice(device, plan, f, sums);
  const GatePlan gates = plan_gates(plan.partials());
  launch(device, gates_kernel<Finish>, {gates.blocks(), kThreads}, gates, sums, finish);
}

}  // namespace l0fast::cuda
