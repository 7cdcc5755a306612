#include "args/l0_penalty.h"
#include "cuda/gates.cuh"

namespace l0fast::cuda {
namespace {

template <typename T>
struct Backward {
  using C = Arithmetic<T>;
  const C* grad;       // [1]
  const T* log_alpha;  // [count]
  T* gradient;         // [count]
  GateParams<C> p;

  template <int kW>
  __device__ void operator()(int64_t i) const {
    C a[kW];
    load(log_alpha + i, a);
#pragma unroll
    for (int k = 0; k < kW; ++k) a[k] = *grad * active_slope(active_probability(a[k], p), a[k], p);
    store(a, gradient + i);
  }
};

}  // namespace

Tensor l0_penalty(const Tensor& log_alpha, double temperature, double gamma, double zeta, double bound) {
  check_l0_penalty("l0_penalty", log_alpha, temperature, gamma, zeta);
  const Device device(log_alpha);
  Tensor penalty = torch::stable::new_empty(log_alpha, {}, sum_type(log_alpha));
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    const T* a = log_alpha.const_data_ptr<T>();
    const SumActive<T> f{a, penalty_params<Arithmetic<T>>(temperature, gamma, zeta, bound)};
    for_each_sum<T>(device, log_alpha.numel(), f, penalty, a);
  });
  return penalty;
}

Tensor l0_penalty_backward(const Tensor& grad, const Tensor& log_alpha, double temperature, double gamma, double zeta,
                           double bound) {
  const char* op = "l0_penalty_backward";
  check_l0_penalty(op, log_alpha, temperature, gamma, zeta);
  check_l0_penalty_gradient(op, grad, log_alpha);
  const Device device(log_alpha);
  Tensor gradient = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    using C = Arithmetic<T>;
    const T* a = log_alpha.const_data_ptr<T>();
    T* out = gradient.mutable_data_ptr<T>();
    const Backward<T> f{grad.const_data_ptr<C>(), a, out, penalty_params<C>(temperature, gamma, zeta, bound)};
    for_each<T>(device, log_alpha.numel(), f, a, out);
  });
  return gradient;
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("l0_penalty", TORCH_BOX(&l0_penalty));
  m.impl("l0_penalty_backward", TORCH_BOX(&l0_penalty_backward));
}

}  // namespace l0fast::cuda
