#include <torch/csrc/stable/library.h>

#include "args/hard_concrete.h"
#include "cpu/gate_args.h"

namespace l0fast::cpu {
namespace {

template <typename T>
void forward(const T* log_alpha, int64_t count, const NoiseArgs& args, const GateParams<Arithmetic<T>>& p, T* z) {
  using C = Arithmetic<T>;
  for_each_block(count, [&](int64_t i, int64_t length) {
    C loaded[kBlock], result[kBlock];
    C* out = target_block(z + i, result);
    gates_range(load_block(log_alpha + i, length, loaded), length, args.first_index + i, args.noise(), p, out);
    store_block(out, length, z + i);
  });
}

// Draws the noise again rather than keeping z: nothing of the gate is stored between the passes.
template <typename T>
void backward(const T* grad_z, const T* log_alpha, int64_t count, const NoiseArgs& args,
              const GateParams<Arithmetic<T>>& p, T* gradient) {
  using C = Arithmetic<T>;
  const C inverse = inverse_temperature(p, args.noise());
  for_each_block(count, [&](int64_t i, int64_t length) {
    C loaded[kBlock], loaded_grad[kBlock], z[kBlock], result[kBlock];
    const C* a = load_block(log_alpha + i, length, loaded);
    gates_range(a, length, args.first_index + i, args.noise(), p, z);
    C* out = target_block(gradient + i, result);
    gate_slope_range(load_block(grad_z + i, length, loaded_grad), z, a, inverse, length, p, out);
    store_block(out, length, gradient + i);
  });
}

Tensor run_forward(const HardConcreteArgs& args) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  Tensor z = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    T* out = z.mutable_data_ptr<T>();
    advise_huge_pages(out, z.numel() * static_cast<int64_t>(sizeof(T)));
    forward(log_alpha.const_data_ptr<T>(), log_alpha.numel(), noise, gate.params<Arithmetic<T>>(), out);
  });
  return z;
}

Tensor run_backward(const HardConcreteArgs& args, const Tensor& grad_z) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  Tensor gradient = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    backward(grad_z.const_data_ptr<T>(), log_alpha.const_data_ptr<T>(), log_alpha.numel(), noise,
             gate.params<Arithmetic<T>>(), gradient.mutable_data_ptr<T>());
  });
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("hard_concrete", TORCH_BOX(&hard_concrete_op<&run_forward>));
  m.impl("hard_concrete_backward", TORCH_BOX(&hard_concrete_backward_op<&run_backward>));
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&instruction_set));
}

}  // namespace l0fast::cpu
