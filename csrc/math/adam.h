// One Adam step (Kingma, Ba 2015, algorithm 1) in the order of operations of torch.optim.Adam, so that the two agree to
// rounding over many steps.
#pragma once

#include "math/elementary.h"

namespace l0fast {

struct AdamArgs {
  double lr, beta1, beta2, epsilon;
};

template <typename T>
struct AdamParams {
  T beta1, beta2, one_minus_beta1, one_minus_beta2;
  T step_size;                // lr / (1 - beta1^t)
  T inverse_sqrt_correction;  // 1 / sqrt(1 - beta2^t)
  T epsilon;

  // step counts from 1.
  static L0FAST_HD AdamParams make(const AdamArgs& a, int64_t step) {
    const double correction1 = 1 - std::pow(a.beta1, static_cast<double>(step));
    const double correction2 = 1 - std::pow(a.beta2, static_cast<double>(step));
    return {
        T(a.beta1),  T(a.beta2), T(1 - a.beta1), T(1 - a.beta2), T(a.lr / correction1), T(1 / std::sqrt(correction2)),
        T(a.epsilon)};
  }
};

template <typename T>
L0FAST_HD T adam_step(T parameter, T gradient, T& first, T& second, const AdamParams<T>& p) {
  first = first + p.one_minus_beta1 * (gradient - first);
  second = p.beta2 * second + p.one_minus_beta2 * gradient * gradient;
  const T denominator = std::sqrt(second) * p.inverse_sqrt_correction + p.epsilon;
  return parameter - p.step_size * (first / denominator);
}

}  // namespace l0fast
