// Gradients of a gated weight v = weight z and of its penalty sum p (DESIGN 3): once, for the CPU and the CUDA kernels.
#pragma once

#include "math/hard_concrete.h"

namespace l0fast {

// dloss/dlog_alpha from the gradients of the gate and of the penalty. Without the penalty its exp is not computed.
template <bool kPenalty, typename T>
L0FAST_HD T log_alpha_gradient(T grad_gate, T grad_penalty, T z, T log_alpha, T inverse_temperature,
                               const GateParams<T>& p) {
  T penalty_slope = 0;  // before the other slope: the CPU loop is a tenth slower the other way round
  if constexpr (kPenalty) penalty_slope = active_slope(active_probability(log_alpha, p), log_alpha, p);
  const T gradient = grad_gate * gate_slope(z, log_alpha, inverse_temperature, p);
  if constexpr (!kPenalty) return gradient;
  return gradient + grad_penalty * penalty_slope;
}

}  // namespace l0fast
