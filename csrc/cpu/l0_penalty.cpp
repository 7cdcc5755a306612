#include <torch/csrc/stable/library.h>

#include <vector>

#include "args/l0_penalty.h"
#include "cpu/gate_args.h"

namespace l0fast::cpu {
Tensor l0_penalty(const Tensor& log_alpha, double temperature, double gamma, double zeta, double bound) {
  check_l0_penalty("l0_penalty", log_alpha, temperature, gamma, zeta);
  const int64_t count = log_alpha.numel();
  Tensor penalty = torch::stable::empty({}, sum_type(log_alpha));
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    using C = Arithmetic<T>;
    const GateParams<C> p = penalty_params<C>(temperature, gamma, zeta, bound);
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
  check_l0_penalty(op, log_alpha, temperature, gamma, zeta);
  check_l0_penalty_gradient(op, grad, log_alpha);
  Tensor gradient = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    using C = Arithmetic<T>;
    const GateParams<C> p = penalty_params<C>(temperature, gamma, zeta, bound);
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
