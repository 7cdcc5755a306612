#pragma once

#include "args/gate.h"

namespace l0fast {

inline void check_l0_penalty(const char* op, const Tensor& log_alpha, double temperature, double gamma, double zeta) {
  check_gate_scalars(op, temperature, gamma, zeta);
  check_floating(op, "log_alpha", log_alpha);
}

inline void check_l0_penalty_gradient(const char* op, const Tensor& grad, const Tensor& log_alpha) {
  check_dtype(op, "grad", grad, sum_type(log_alpha));
  check_device(op, "grad", grad, log_alpha);
  if (grad.numel() != 1) fail(op, "grad", "expected one element, got shape ", shape_text(grad));
}

// The penalty has no noise and no test-time variant: the last two scalars do not enter it.
template <typename T>
GateParams<T> penalty_params(double temperature, double gamma, double zeta, double bound) {
  return GateParams<T>::make(temperature, gamma, zeta, bound, 0, true);
}

}  // namespace l0fast
