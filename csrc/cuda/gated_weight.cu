#include "args/gated_weight.h"

#include <tuple>

#include "cuda/gated_slices.cuh"

namespace l0fast::cuda {
namespace {

// A gate per element: sample, multiply and add up p in one pass.
template <typename T>
struct Forward {
  using C = Arithmetic<T>;
  const T *weight, *log_alpha;  // [count]
  T* v;                         // [count]
  int64_t first_index;
  Noise noise;
  GateParams<C> p;

  template <int kW>
  __device__ void multiply(int64_t i, C (&a)[kW]) const {
    C w[kW], gate[kW];
    load(log_alpha + i, a);
    load(weight + i, w);
    draw_gates(a, first_index + i, noise, p, gate);
#pragma unroll
    for (int k = 0; k < kW; ++k) w[k] *= gate[k];
    store(w, v + i);
  }

  template <int kW>
  __device__ void operator()(int64_t i) const {
    C a[kW];
    multiply(i, a);
  }

  template <int kW>
  __device__ double sum(int64_t i) const {
    C a[kW];
    multiply(i, a);
    return sum_of_probabilities(a, p);
  }
};

// Draws the gates again: on a GPU that costs less than reading v to divide it by weight. In place, grad_weight is
// grad_v: a thread has read its elements before it writes them.
template <typename T>
struct Backward {
  using C = Arithmetic<T>;
  const C* grad_penalty;                 // [1] or nullptr: 0
  const T *grad_v, *weight, *log_alpha;  // [count]
  T *grad_weight, *grad_log_alpha;       // [count]
  int64_t first_index;
  Noise noise;
  GateParams<C> p;

  template <int kW>
  __device__ void operator()(int64_t i) const {
    const C inverse = inverse_temperature(p, noise);
    C a[kW], w[kW], grad[kW], gate[kW];
    load(log_alpha + i, a);
    draw_gates(a, first_index + i, noise, p, gate);
    load(weight + i, w);  // after the gates: their doubles would not leave registers for these
    load(grad_v + i, grad);
#pragma unroll
    for (int k = 0; k < kW; ++k) {
      w[k] *= grad[k];  // dloss/dz
      grad[k] *= gate[k];
    }
    store(grad, grad_weight + i);
#pragma unroll
    for (int k = 0; k < kW; ++k)
      a[k] = grad_penalty == nullptr ? log_alpha_gradient<false>(w[k], C(0), gate[k], a[k], inverse, p)
                                     : log_alpha_gradient<true>(w[k], *grad_penalty, gate[k], a[k], inverse, p);
    store(a, grad_log_alpha + i);
  }
};

template <typename T>
void forward_elements(const Device& device, const Tensor& weight, const Tensor& log_alpha, const GateArgs& gate,
                      const NoiseArgs& noise, Tensor& v, Tensor* penalty) {
  const Forward<T> f{weight.const_data_ptr<T>(),
                     log_alpha.const_data_ptr<T>(),
                     v.mutable_data_ptr<T>(),
                     noise.first_index,
                     noise.noise(),
                     gate.params<Arithmetic<T>>()};
  if (penalty != nullptr) {
    for_each_sum<T>(device, weight.numel(), f, *penalty, f.weight, f.log_alpha, f.v);
  } else {
    for_each<T>(device, weight.numel(), f, f.weight, f.log_alpha, f.v);
  }
}

template <typename T>
void backward_elements(const Device& device, const Tensor& grad_v, const Arithmetic<T>* grad_penalty,
                       const Tensor& weight, const Tensor& log_alpha, const GateArgs& gate, const NoiseArgs& noise,
                       T* grad_weight, T* grad_log_alpha) {
  const Backward<T> f{grad_penalty,
                      grad_v.const_data_ptr<T>(),
                      weight.const_data_ptr<T>(),
                      log_alpha.const_data_ptr<T>(),
                      grad_weight,
                      grad_log_alpha,
                      noise.first_index,
                      noise.noise(),
                      gate.params<Arithmetic<T>>()};
  for_each<T>(device, weight.numel(), f, f.grad_v, f.weight, f.log_alpha, grad_weight, grad_log_alpha);
}

// Read on the device: no call waits for it.
template <typename C>
const C* pointer_or_null(const OptionalTensor& t) {
  return t.has_value() ? t->const_data_ptr<C>() : nullptr;
}

WeightPair run_forward(const GatedWeightArgs& args, bool with_penalty) {
  const Tensor &weight = args.weight, &log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const auto& slices = args.slices;
  const Device device(weight);
  Tensor v = torch::stable::empty_like(weight);
  Tensor penalty = torch::stable::new_empty(weight, {}, sum_type(weight));
  if (!with_penalty) {
    const size_t bytes = static_cast<size_t>(penalty.element_size());
    fill_bytes(device, penalty.mutable_data_ptr(), 0, bytes);
  }
  Tensor* const sum = with_penalty ? &penalty : nullptr;
  with_floating(weight, [&](auto zero) {
    using T = decltype(zero);
    if (slices) {
      forward_slices<T>(device, *slices, weight, log_alpha, gate, noise, v, sum);
    } else {
      forward_elements<T>(device, weight, log_alpha, gate, noise, v, sum);
    }
  });
  return {v, penalty};
}

// v is checked, but not read: see Backward.
WeightPair run_backward(const GatedWeightArgs& args, const Tensor& grad_v, const OptionalTensor& grad_penalty,
                        const OptionalTensor& v) {
  const Tensor &weight = args.weight, &log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const auto& slices = args.slices;
  const Device device(weight);
  Tensor grad_weight = torch::stable::empty_like(weight);
  Tensor grad_log_alpha = torch::stable::empty_like(log_alpha);
  with_floating(weight, [&](auto zero) {
    using T = decltype(zero);
    const auto* factor = pointer_or_null<Arithmetic<T>>(grad_penalty);
    if (slices) {
      backward_slices<T>(device, *slices, grad_v, factor, weight, log_alpha, gate, noise, grad_weight, grad_log_alpha);
    } else {
      backward_elements<T>(device, grad_v, factor, weight, log_alpha, gate, noise, grad_weight.mutable_data_ptr<T>(),
                           grad_log_alpha.mutable_data_ptr<T>());
    }
  });
  return {grad_weight, grad_log_alpha};
}

void run_backward_in_place(const GatedWeightArgs& args, Tensor& grad_v, Tensor& v, const OptionalTensor& grad_penalty) {
  const Tensor &weight = args.weight, &log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const Device device(weight);
  with_real(weight, [&](auto zero) {
    using T = decltype(zero);
    backward_elements<T>(device, grad_v, pointer_or_null<T>(grad_penalty), weight, log_alpha, gate, noise,
                         grad_v.mutable_data_ptr<T>(), v.mutable_data_ptr<T>());
  });
}

// Device memory has no page faults to save.
Tensor empty_large(const Tensor& like) {
  return torch::stable::empty_like(like);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("empty_large", TORCH_BOX(&empty_large));
  m.impl("gated_weight", TORCH_BOX(&gated_weight_op<&run_forward>));
  m.impl("gated_weight_backward", TORCH_BOX(&gated_weight_backward_op<&run_backward>));
  m.impl("gated_weight_backward_", TORCH_BOX(&gated_weight_backward_in_place_op<&run_backward_in_place>));
}

}  // namespace l0fast::cuda
