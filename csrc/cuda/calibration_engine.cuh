// An epoch on the device: scatter, residuals, gather and step, three or four launches and no word from the host.
#pragma once

#include "args/calibration_epochs.h"
#include "cuda/calibration_passes.cuh"
#include "math/objective.h"

namespace l0fast::cuda {

template <typename T>
struct Bias {
  T *value, *first, *second;  // [1] each, or nullptr: none
};

template <typename T>
struct Residuals {
  Targets targets;
  Fixed* totals;  // [n_targets], left at 0 for the next epoch
  const int* exponents;
  int bits;
  int64_t n_targets, first_epoch;
  T* slopes;  // [n_targets] r
  Bias<T> bias;
  AdamArgs adam;
  double *losses, *slope_sums;  // [blocks]
  double* metrics;              // [epochs, kMetrics]
  Run<T>* run;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) residuals_kernel(Residuals<T> a) {
  Run<T>& run = *a.run;
  if (run.cursor.stopped) return;
  const double bias = a.bias.value == nullptr ? 0.0 : static_cast<double>(*a.bias.value);
  double loss = 0, slope = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t j = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; j < a.n_targets; j += stride) {
    const double total = total_of(a.totals[j], row_exponent<T>(a.exponents[j]), run.cursor.exponent, a.bits);
    a.totals[j] = 0;
    const Residual r = residual(a.targets, j, total + bias);
    loss += r.loss;
    slope += r.slope;
    a.slopes[j] = static_cast<T>(r.slope);
  }
  loss = block_sum(loss);
  slope = block_sum(slope);
  if (threadIdx.x == 0) {
    a.losses[blockIdx.x] = loss;
    a.slope_sums[blockIdx.x] = slope;
  }
  if (!arrive_last(&run.residuals_finished, gridDim.x)) return;
  loss = sum_of_blocks(a.losses, gridDim.x);
  slope = sum_of_blocks(a.slope_sums, gridDim.x);
  if (threadIdx.x != 0) return;
  if (run.cursor.broken) loss = static_cast<double>(NAN);
  a.metrics[run.done * kMetrics] = loss;
  if (!(loss - loss == 0)) {
    run.cursor.stopped = 1;
    return;
  }
  run.adam = AdamParams<T>::make(a.adam, a.first_epoch + run.done + 1);
  if (a.bias.value != nullptr)
    *a.bias.value = adam_step(*a.bias.value, static_cast<T>(slope), *a.bias.first, *a.bias.second, run.adam);
}

}  // namespace l0fast::cuda
