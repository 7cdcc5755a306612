// An epoch on the device: scatter, residuals, gather and step, three or four launches and no word from the host.
//
// What changes from epoch to epoch (the count, Adam's corrections, the bound of the weights) lives in a Run on the
// device, moved on by the last block of a launch: every epoch is the same list of launches, which a graph repeats.
#pragma once

#include "args/calibration_epochs.h"
#include "cuda/passes.cuh"
#include "math/calibration_step.h"
#include "math/objective.h"

namespace l0fast::cuda {

template <typename T>
struct Run {
  Cursor cursor;
  unsigned residuals_finished, step_finished;  // blocks
  int64_t done;                                // epochs of this call
  AdamParams<T> adam;                          // of the epoch at hand
};

struct AdamArgs {
  double lr, beta1, beta2, epsilon;
};

template <typename T>
struct Bias {
  T *value, *first, *second;  // [1] each, or nullptr: none
};

// -- residuals --------------------------------------------------------------------------------------------------------

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
  run.adam = AdamParams<T>::make(a.adam.lr, a.adam.beta1, a.adam.beta2, a.adam.epsilon, a.first_epoch + run.done + 1);
  if (a.bias.value != nullptr)
    *a.bias.value = adam_step(*a.bias.value, static_cast<T>(slope), *a.bias.first, *a.bias.second, run.adam);
}

// -- step -------------------------------------------------------------------------------------------------------------

// What gather_kernel does with a record: L0, L2, Adam, the bound of the next weights and the next gate.
template <typename T>
struct Step {
  // What a thread carries from record to record.
  struct Own {
    uint32_t next_stream;
    double probability = 0, squares = 0, open = 0;
    int exponent = kLeastExponent;
  };

  T *log_weight, *log_alpha, *weight_first, *weight_second, *alpha_first, *alpha_second;  // [n_records]
  const T* anchor;                                                                        // [n_records] or nullptr
  T* gates;                                                                               // [n_records]
  const int64_t* seed;
  int64_t first_epoch, first_index;
  StepParams<T> params;  // but for adam, which run has
  double* sums;          // [3, blocks]
  double* metrics;       // [epochs, kMetrics]
  Run<T>* run;

  __device__ bool stopped() const { return run->cursor.stopped != 0; }

  __device__ Own begin() const { return {static_cast<uint32_t>(first_epoch + run->done + 1)}; }

  __device__ void record(int64_t i, T gate, T g, Own& own) const {
    if (params.link == Link::kExp) {
      step<Link::kExp>(i, gate, g, own);
    } else {
      step<Link::kIdentity>(i, gate, g, own);
    }
  }

  template <Link kLink>
  __device__ __forceinline__ void step(int64_t i, T gate, T g, Own& own) const {
    const T weight = l0fast::linked<kLink>(log_weight[i]), a = log_alpha[i];
    const T ratio = anchor == nullptr ? weight : weight / anchor[i];
    const T ratio_slope = kLink == Link::kExp ? ratio : anchor == nullptr ? T(1) : T(1) / anchor[i];
    const T probability = active_probability(a, params.gate);
    const T inverse = params.gates ? params.gate.inverse_temperature : T(0);
    const T grad_weight = weight_gradient<kLink>(g, weight, gate, ratio, ratio_slope, params);
    const T grad_alpha = alpha_gradient(g, weight, gate, a, probability, inverse, params);
    const T new_weight = adam_step(log_weight[i], grad_weight, weight_first[i], weight_second[i], run->adam);
    const T new_alpha = adam_step(a, grad_alpha, alpha_first[i], alpha_second[i], run->adam);
    log_weight[i] = new_weight;
    log_alpha[i] = new_alpha;
    own.exponent = larger(own.exponent, exponent_above(l0fast::linked<kLink>(new_weight)));
    own.probability += static_cast<double>(probability);
    if (params.twice_lambda_l2 != T(0)) own.squares += static_cast<double>(ratio) * static_cast<double>(ratio);
    own.open += gate != T(0) ? 1.0 : 0.0;
    if (!params.gates) return;
    const T alpha[1] = {new_alpha};
    T next[1];
    draw_gates(alpha, first_index + i, Noise{seed, own.next_stream}, params.gate, next);
    gates[i] = next[0];
  }

  __device__ void end(const Own& own) const {
    const int most = warp_max(own.exponent);
    if (threadIdx.x % kWarp == 0) atomicMax(&run->cursor.next_exponent, most);
    const double mine[3] = {own.probability, own.squares, own.open};
    for (int k = 0; k < 3; ++k) {
      const double sum = block_sum(mine[k]);
      if (threadIdx.x == 0) sums[k * gridDim.x + blockIdx.x] = sum;
    }
    if (!arrive_last(&run->step_finished, gridDim.x) || threadIdx.x != 0) return;
    const volatile double* all = sums;
    for (unsigned k = 0; k < 3; ++k) {
      double sum = 0;
      for (unsigned b = 0; b < gridDim.x; ++b) sum += all[k * gridDim.x + b];
      metrics[run->done * kMetrics + 1 + k] = sum;
    }
    run->cursor.exponent = run->cursor.next_exponent;
    run->cursor.next_exponent = kLeastExponent;
    run->done += 1;
  }
};

}  // namespace l0fast::cuda
