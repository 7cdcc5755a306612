#include <torch/csrc/stable/library.h>

#include <vector>

#include "cpu/gate_args.h"

namespace l0fast::cpu {
namespace {

void check(const char* op, const Tensor& log_alpha, double temperature, double gamma, double zeta) {
  check_gate_scalars(op, temperature, gamma, zeta);
  check_floating(op, "log_alpha", log_alpha);
}

// The penalty has no noise and no test-time variant: the last two scalars do not enter it.
template <typename T>
GateParams<T> params(double temperature, double gamma, double zeta, double bound) {
  return GateParams<T>::make(temperature, gamma, zeta, bound, 0, true);
}

}  // namespace

Tensor l0_penalty(const Tensor& log_alpha, double temperature, double gamma, double zeta, double bound) {
  check("l0_penalty", log_alpha, temperature, gamma, zeta);
  const int64_t count = log_alpha.numel();
  Tensor penalty = torch::stable::empty({}, sum_type(log_alpha));
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    using C = Arithmetic<T>;
    const GateParams<C> p = params<C>(temperature, gamma, zeta, bound);
    const T* x = log_alpha.const_data_ptr<T>();
    std::vector<double> sums((count + kBlock - 1) / kBlock);
    for_each_block(count, [&](int64_t i, int64_t length) {
      C loaded[kBlock];
      sums[i / kBlock] = penalty_range(load_block(x + i, length, loaded), length, p);
    });
    double sum = 0;
    for (const double block : sums) sum += block;
    *penalty.mutable_data_ptr<C>() = static_cast<C>(sum);
  });
  return penalty;
}

Tensor l0_penalty_backward(const Tensor& grad, const Tensor& log_alpha, double temperature, double gamma, double zeta,
                           double bound) {
  const char* op = "l0_penalty_backward";
  check(op, log_alpha, temperature, gamma, zeta);
  check_dtype(op, "grad", grad, sum_type(log_alpha));
  if (grad.numel() != 1) fail(op, "grad", "expected one element, got shape ", shape_text(grad));
  Tensor gradient = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    using C = Arithmetic<T>;
    const GateParams<C> p = params<C>(temperature, gamma, zeta, bound);
    const C factor = *grad.const_data_ptr<C>();
    const T* x = log_alpha.const_data_ptr<T>();
    T* gradients = gradient.mutable_data_ptr<T>();
    advise_huge_pages(gradients, log_alpha.numel() * static_cast<int64_t>(sizeof(T)));
    for_each_block(log_alpha.numel(), [&](int64_t i, int64_t length) {
      C loaded[kBlock], result[kBlock];
      C* out = target_block(gradients + i, result);
      penalty_slope_range(load_block(x + i, length, loaded), factor, length, p, out);
      store_block(out, length, gradients + i);
    });
  });
  return gradient;
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("l0_penalty", TORCH_BOX(&l0_penalty));
  m.impl("l0_penalty_backward", TORCH_BOX(&l0_penalty_backward));
}

}  // namespace l0fast::cpu
