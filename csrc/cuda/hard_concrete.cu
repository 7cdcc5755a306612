#include "args/hard_concrete.h"
#include "cuda/gates.cuh"

namespace l0fast::cuda {
namespace {

// Draws the noise again rather than keeping z: nothing of the gate is stored between the passes.
template <typename T>
struct Backward {
  using C = Arithmetic<T>;
  const T *grad_z, *log_alpha;  // [count]
  T* gradient;                  // [count]
  int64_t first_index;
  Noise noise;
  GateParams<C> p;

  template <int kW>
  __device__ void operator()(int64_t i) const {
    const C inverse = inverse_temperature(p, noise);
    C a[kW], grad[kW], gate[kW];
    load(log_alpha + i, a);
    load(grad_z + i, grad);
    draw_gates(a, first_index + i, noise, p, gate);
#pragma unroll
    for (int k = 0; k < kW; ++k) grad[k] *= gate_slope(gate[k], a[k], inverse, p);
    store(grad, gradient + i);
  }
};

Tensor run_forward(const HardConcreteArgs& args) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const Device device(log_alpha);
  Tensor z = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    const T* a = log_alpha.const_data_ptr<T>();
    T* out = z.mutable_data_ptr<T>();
    const DrawGates<T> f{a, out, noise.first_index, noise.noise(), gate.params<Arithmetic<T>>()};
    for_each<T>(device, log_alpha.numel(), f, a, out);
  });
  return z;
}

Tensor run_backward(const HardConcreteArgs& args, const Tensor& grad_z) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const Device device(log_alpha);
  Tensor gradient = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    const T *grad = grad_z.const_data_ptr<T>(), *a = log_alpha.const_data_ptr<T>();
    T* out = gradient.mutable_data_ptr<T>();
    const Backward<T> f{grad, a, out, noise.first_index, noise.noise(), gate.params<Arithmetic<T>>()};
    for_each<T>(device, log_alpha.numel(), f, grad, a, out);
  });
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("hard_concrete", TORCH_BOX(&hard_concrete_op<&run_forward>));
  m.impl("hard_concrete_backward", TORCH_BOX(&hard_concrete_backward_op<&run_backward>));
}

}  // namespace l0fast::cuda
