#include "args/batch_gates.h"
#include "cuda/noise.cuh"
#include "cuda/slices.cuh"

namespace l0fast::cuda {
namespace {

// z is [batch, gates, 1] in the terms of slices.cuh: a thread keeps its gates' log_alpha and goes through examples.
// Element b * gates + i draws at first_index + b * gates + i: example b's draw of gate i.
template <typename T>
struct Forward {
  using C = Arithmetic<T>;
  static constexpr int kPack = kWidth<T>;
  static constexpr bool kSum = false, kRows = false;
  const T* values;  // [gates] log_alpha
  T* z;             // [batch, gates]
  int64_t first_index;
  Noise noise;
  GateParams<C> p;

  template <int kW>
  __device__ void operator()(int64_t i, const C (&log_alpha)[kW]) const {
    C gate[kW];
    draw_gates(log_alpha, first_index + i, noise, p, gate);
    store(gate, z + i);
  }
};

// Draws the noise again rather than keeping z.
template <typename T>
struct Backward {
  using C = Arithmetic<T>;
  static constexpr int kPack = 4;  // of the 16-bit types too: registers are for sums in double
  static constexpr bool kSum = true, kRows = false;
  const T* values;  // [gates] log_alpha
  const T* grad_z;  // [batch, gates]
  int64_t first_index;
  Noise noise;
  GateParams<C> p;

  template <int kW>
  __device__ void operator()(int64_t i, const C (&log_alpha)[kW], C (&term)[kW]) const {
    C gate[kW];
    load(grad_z + i, term);
    draw_gates(log_alpha, first_index + i, noise, p, gate);
#pragma unroll
    for (int k = 0; k < kW; ++k) term[k] *= gate_slope(gate[k], log_alpha[k], p.inverse_temperature, p);
  }
};

template <typename T>
struct StoreSum {
  T* gradient;  // [gates]

  __device__ void operator()(int64_t g, double sum) const {
    gradient[g] = static_cast<T>(static_cast<Arithmetic<T>>(sum));
  }
};

Tensor run_forward(const BatchGatesArgs& args, int64_t batch) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const Device device(log_alpha);
  Tensor z = torch::stable::new_empty(log_alpha, batch_shape(log_alpha, batch));
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    const Forward<T> f{log_alpha.const_data_ptr<T>(), z.mutable_data_ptr<T>(), noise.first_index, noise.noise(),
                       gate.params<Arithmetic<T>>()};
    const Slices s{batch, log_alpha.numel(), 1};
    for_each_slice(device, plan_columns(s, aligned16(f.z) ? f.kPack : 1, false), f, nullptr);
  });
  return z;
}

Tensor run_backward(const BatchGatesArgs& args, int64_t batch, const Tensor& grad_z) {
  const Tensor& log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const Device device(log_alpha);
  Tensor gradient = torch::stable::empty_like(log_alpha);
  with_floating(log_alpha, [&](auto zero) {
    using T = decltype(zero);
    const Backward<T> f{log_alpha.const_data_ptr<T>(), grad_z.const_data_ptr<T>(), noise.first_index, noise.noise(),
                        gate.params<Arithmetic<T>>()};
    const Slices s{batch, log_alpha.numel(), 1};
    const SlicePlan plan = plan_columns(s, aligned16(f.grad_z) ? f.kPack : 1, true);
    sum_each_slice(device, plan, f, log_alpha, StoreSum<T>{gradient.mutable_data_ptr<T>()});
  });
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("batch_gates", TORCH_BOX(&batch_gates_op<&run_forward>));
  m.impl("batch_gates_backward", TORCH_BOX(&batch_gates_backward_op<&run_backward>));
}

}  // namespace l0fast::cuda
