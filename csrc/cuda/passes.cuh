// Launches of the two passes, with the lanes per column and the shared memory of the plan.
#pragma once

#include "cuda/gates.cuh"
#include "cuda/gather.cuh"

namespace l0fast::cuda {

// Calls fn(lanes tag).
template <typename F>
void with_lanes(int64_t lanes, const F& fn) {
  if (lanes == 8) return fn(std::integral_constant<int, 8>{});
  if (lanes == 16) return fn(std::integral_constant<int, 16>{});
  fn(std::integral_constant<int, 32>{});
}

// More than 48 KB of shared memory must be asked for, kernel by kernel.
template <typename Kernel>
void allow_shared(Kernel* kernel, int64_t bytes) {
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)),
             "cudaFuncSetAttribute");
}

template <typename T, typename Row>
void launch_scatter(const Device& device, const CalibrationPlan& plan, const Scatter<T, Row>& s) {
  with_lanes(plan.lanes, [&](auto lanes) {
    const auto kernel = scatter_kernel<T, Row, decltype(lanes)::value>;
    allow_shared(kernel, plan.scatter.shared);
    launch(device, kernel, {plan.scatter.blocks, plan.scatter.threads, plan.scatter.shared}, s);
  });
}

template <typename T, typename Row, typename Finish>
void launch_gather(const Device& device, const CalibrationPlan& plan, const Gather<T, Row>& a, const Cursor* cursor,
                   const Finish& finish) {
  const int64_t chunks = a.long_columns.chunks;
  launch(device, gather_long_kernel<T, Row>,
         {std::min(divided_up(chunks, kThreads / kWarp), 8 * device.multiprocessors()), kThreads}, a, cursor);
  with_lanes(plan.lanes, [&](auto lanes) {
    const auto kernel = gather_kernel<T, Row, decltype(lanes)::value, Finish>;
    allow_shared(kernel, plan.gather.shared);
    launch(device, kernel, {plan.gather.blocks, plan.gather.threads, plan.gather.shared}, a, finish);
  });
}

template <typename T>
void launch_bound(const Device& device, const T* log_weight, int64_t count, Link link, int* exponent) {
  const int64_t blocks = std::min(divided_up(count, kThreads), 8 * device.multiprocessors());
  launch(device, bound_weights<T>, {blocks, kThreads}, log_weight, count, link, exponent);
}

// The gates of all records; without gates all are 1.
template <typename T>
void launch_gates(const Device& device, const T* log_alpha, int64_t count, int64_t first_index, const Noise& noise,
                  const GateParams<T>& p, bool gates, T* z) {
  if (gates) {
    for_each<T>(device, count, DrawGates<T>{log_alpha, z, first_index, noise, p}, log_alpha, z);
  } else {
    for_each<T>(device, count, OpenGates<T>{z}, z);
  }
}

// Totals as numbers; all NaN where an open weight was not finite.
template <typename T, typename Out>
__global__ void __launch_bounds__(kThreads)
    read_totals(const Fixed* sums, const int* exponents, int64_t count, int bits, const Cursor* cursor, Out* totals) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; j < count; j += stride) {
    const double total = total_of(sums[j], row_exponent<T>(exponents[j]), cursor->exponent, bits);
    totals[j] = cursor->broken ? static_cast<Out>(NAN) : static_cast<Out>(total);
  }
}

template <typename T, typename Row, typename Out>
void launch_read(const Device& device, DeviceMatrix<T, Row>& matrix, const Fixed* sums, const Cursor* cursor,
                 Out* totals) {
  const int64_t count = matrix.columns().n_targets;
  launch(device, read_totals<T, Out>, {elementwise_blocks(device, count), kThreads}, sums, matrix.exponents(), count,
         matrix.bits(), cursor, totals);
}

}  // namespace l0fast::cuda
