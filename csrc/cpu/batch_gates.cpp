#include <torch/csrc/stable/library.h>

#include "args/batch_gates.h"
#include "cpu/gate_args.h"
#include "cpu/gated_ranges.h"

namespace l0fast::cpu {
namespace {

// Element b * gates + i of z draws at first_index + b * gates + i: example b's draw of gate i.
template <typename T>
void forward(const T* log_alpha, int64_t gates, int64_t batch, const NoiseArgs& args,
             const GateParams<Arithmetic<T>>& p, T* z) {
  using C = Arithmetic<T>;
  const int64_t blocks = (gates + kBlock - 1) / kBlock;
  for_each_part(batch * blocks, [&](int64_t part) {
    const int64_t first = part % blocks * kBlock, length = std::min(kBlock, gates - first);
    const int64_t place = part / blocks * gates + first;
    C loaded[kBlock], result[kBlock];
    C* out = target_block(z + place, result);
    gates_range(load_block(log_alpha + first, length, loaded), length, args.first_index + place, args.noise(), p, out);
    store_block(out, length, z + place);
  });
}

// A task has one block of gates and goes through the batch: the order of the sum does not depend on the threads.
template <typename T>
void backward(const T* grad_z, const T* log_alpha, int64_t gates, int64_t batch, const NoiseArgs& args,
              const GateParams<Arithmetic<T>>& p, T* gradient) {
  using C = Arithmetic<T>;
  for_each_block(gates, [&](int64_t first, int64_t length) {
    C loaded[kBlock], loaded_grad[kBlock], z[kBlock], slope[kBlock];
    double sum[kBlock] = {};
    const C* a = load_block(log_alpha + first, length, loaded);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t place = b * gates + first;
      gates_range(a, length, args.first_index + place, args.noise(), p, z);
      gate_slope_range(load_block(grad_z + place, length, loaded_grad), z, a, p.inverse_temperature, length, p, slope);
      add_range(slope, length, sum);
    }
    for (int64_t i = 0; i < length; ++i) gradient[first + i] = static_cast<T>(static_cast<C>(sum[i]));
  });
}

Tensor run_forward(const BatchGatesArgs& args, int64_t batch) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  Tensor z = torch::stable::empty(batch_shape(log_alpha, batch), log_alpha.scalar_type());
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    T* out = z.mutable_data_ptr<T>();
    advise_huge_pages(out, z.numel() * static_cast<int64_t>(sizeof(T)));
    forward(log_alpha.const_data_ptr<T>(), log_alpha.numel(), batch, noise, gate.params<Arithmetic<T>>(), out);
  });
  return z;
}

Tensor run_backward(const BatchGatesArgs& args, int64_t batch, const Tensor& grad_z) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  Tensor gradient = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    backward(grad_z.const_data_ptr<T>(), log_alpha.const_data_ptr<T>(), log_alpha.numel(), batch, noise,
             gate.params<Arithmetic<T>>(), gradient.mutable_data_ptr<T>());
  });
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("batch_gates", TORCH_BOX(&batch_gates_op<&run_forward>));
  m.impl("batch_gates_backward", TORCH_BOX(&batch_gates_backward_op<&run_backward>));
}

}  // namespace l0fast::cpu
