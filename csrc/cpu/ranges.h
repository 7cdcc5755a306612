// Elementwise loops over a short range of records (at most kBlock, so that temporaries stay in the first-level cache).
// Each is compiled for several instruction sets (clones.h); all formulas come from math/.
#pragma once

#include <cstdint>

#include "math/calibration_step.h"

namespace l0fast::cpu {

// A multiple of 4, so that a block that begins at one holds whole Philox blocks. 1024 columns of 60 entries are
// 360 KB: they stay in a second-level cache between the gather and the scatter of an epoch.
constexpr int64_t kBlock = 1024;

// Sums that a step leaves behind, of the parameters as they were before it.
struct StepSums {
  double probability = 0;  // sum p
  double squares = 0;      // sum (linked(log_weight) / anchor)^2
};

// The arrays of a step, already advanced to the range.
template <typename T>
struct StepArrays {
  T *log_weight, *log_alpha;        // [count]
  T *weight_first, *weight_second;  // [count] Adam moments of log_weight
  T *alpha_first, *alpha_second;    // [count] Adam moments of log_alpha
  const T* anchor;                  // [count] or nullptr: 1
  const T *low, *high;              // [count] or nullptr: no bound of log_weight
  const T *gate, *matrix_gradient;  // [count] z and g, this epoch's
};

// gates_range: z. weights_range: linked(log_weight) z, or linked(log_weight) alone without gates. penalty_range: sum p.
// *_slope_range: factor dp/dlog_alpha, and grad_gate dz/dlog_alpha. step_range: L0, L2, Adam, L1
// and the bounds of one epoch.
#define L0FAST_DECLARE_RANGES(T)                                                                                     \
  void gates_range(const T* log_alpha, int64_t count, int64_t index, Noise noise, const GateParams<T>& p, T* gate);  \
  void weights_range(const T* log_weight, const T* gate, int64_t count, Link link, T* weight);                       \
  double penalty_range(const T* log_alpha, int64_t count, const GateParams<T>& p);                                   \
  void penalty_slope_range(const T* log_alpha, T factor, int64_t count, const GateParams<T>& p, T* gradient);        \
  void gate_slope_range(const T* grad_gate, const T* gate, const T* log_alpha, T inverse_temperature, int64_t count, \
                        const GateParams<T>& p, T* gradient);                                                        \
  StepSums step_range(const StepArrays<T>& arrays, int64_t count, const StepParams<T>& p);

L0FAST_DECLARE_RANGES(float)
L0FAST_DECLARE_RANGES(double)
#undef L0FAST_DECLARE_RANGES

int64_t instruction_set();

}  // namespace l0fast::cpu
