#include <torch/csrc/stable/library.h>

#include "args/gated_weight.h"
#include "cpu/gated_slices.h"
#include "math/gated_weight.h"

namespace l0fast::cpu {
namespace {

// Gates of a whole tensor, in the arithmetic type: z [count], and the sum of p if it is asked for.
template <typename T>
double draw_gates(const T* log_alpha, int64_t count, const NoiseArgs& args, const GateParams<Arithmetic<T>>& p,
                  bool with_penalty, Arithmetic<T>* z) {
  using C = Arithmetic<T>;
  std::vector<double> sums((count + kBlock - 1) / kBlock);
  for_each_block(count, [&](int64_t i, int64_t length) {
    C loaded[kBlock];
    const C* a = load_block(log_alpha + i, length, loaded);
    gates_range(a, length, args.first_index + i, args.noise(), p, z + i);
    if (with_penalty) sums[i / kBlock] = penalty_range(a, length, p);
  });
  double sum = 0;
  for (const double block : sums) sum += block;
  return sum;
}

// A gate per element: sample, multiply and add up p in one pass. Returns the sum of p.
template <typename T>
double forward_elements(const T* weight, const T* log_alpha, int64_t count, const NoiseArgs& args,
                        const GateParams<Arithmetic<T>>& p, bool with_penalty, T* v) {
  using C = Arithmetic<T>;
  std::vector<double> sums((count + kBlock - 1) / kBlock);
  for_each_block(count, [&](int64_t i, int64_t length) {
    C loaded_weight[kBlock], loaded_alpha[kBlock], z[kBlock], result[kBlock];
    const C* a = load_block(log_alpha + i, length, loaded_alpha);
    gates_range(a, length, args.first_index + i, args.noise(), p, z);
    C* out = target_block(v + i, result);
    product_range(load_block(weight + i, length, loaded_weight), z, length, out);
    store_block(out, length, v + i);
    if (with_penalty) sums[i / kBlock] = penalty_range(a, length, p);
  });
  double sum = 0;
  for (const double block : sums) sum += block;
  return sum;
}

template <typename T>
struct Gradients {
  const T* grad_v;
  Arithmetic<T> grad_penalty;
  const T* v;  // nullptr: gates are drawn again
  T *weight, *log_alpha;
};

// Gates come from v / weight where v was kept in full precision and no weight is too small; else they are drawn again.
template <typename T>
void backward_elements(const Gradients<T>& grad, const T* weight, const T* log_alpha, int64_t count,
                       const NoiseArgs& args, const GateParams<Arithmetic<T>>& p) {
  using C = Arithmetic<T>;
  const C inverse = inverse_temperature(p, args.noise());
  for_each_block(count, [&](int64_t i, int64_t length) {
    C loaded_grad[kBlock], loaded_weight[kBlock], loaded_alpha[kBlock], z[kBlock], weight_result[kBlock],
        alpha_result[kBlock];
    const C* w = load_block(weight + i, length, loaded_weight);
    const C* a = load_block(log_alpha + i, length, loaded_alpha);
    bool known = false;
    if constexpr (std::is_same_v<T, C>) known = grad.v != nullptr && quotient_range(grad.v + i, w, length, z);
    if (!known) gates_range(a, length, args.first_index + i, args.noise(), p, z);
    C* grad_weight = target_block(grad.weight + i, weight_result);
    C* grad_alpha = target_block(grad.log_alpha + i, alpha_result);
    gated_slopes_range(load_block(grad.grad_v + i, length, loaded_grad), grad.grad_penalty, w, z, a, inverse, length, p,
                       grad_weight, grad_alpha);
    store_block(grad_weight, length, grad.weight + i);
    store_block(grad_alpha, length, grad.log_alpha + i);
  });
}

// The same in place: grad_v and v turn into the gradients of weight and log_alpha, block by block.
template <typename T>
void backward_elements_(T* grad_v, T* v, T grad_penalty, const T* weight, const T* log_alpha, int64_t count,
                        const NoiseArgs& args, const GateParams<T>& p) {
  const T inverse = inverse_temperature(p, args.noise());
  for_each_block(count, [&](int64_t i, int64_t length) {
    T z[kBlock], grad[kBlock];
    if (!quotient_range(v + i, weight + i, length, z))
      gates_range(log_alpha + i, length, args.first_index + i, args.noise(), p, z);
    std::copy(grad_v + i, grad_v + i + length, grad);  // the loop's inputs and outputs must not be the same memory
    gated_slopes_range(grad, grad_penalty, weight + i, z, log_alpha + i, inverse, length, p, grad_v + i, v + i);
  });
}

template <typename T>
void backward_slices(const Gradients<T>& grad, const T* weight, const T* log_alpha, const Slices& s,
                     const NoiseArgs& args, const GateParams<Arithmetic<T>>& p) {
  using C = Arithmetic<T>;
  std::vector<C> z(s.gates);
  draw_gates(log_alpha, s.gates, args, p, false, z.data());
  const std::vector<double> grad_gate = slice_gradients(grad.grad_v, weight, z.data(), s, grad.weight);
  const C inverse = inverse_temperature(p, args.noise());
  for (int64_t g = 0; g < s.gates; ++g) {
    const C a = static_cast<C>(log_alpha[g]);
    const C sum = static_cast<C>(grad_gate[g]);
    grad.log_alpha[g] = static_cast<T>(log_alpha_gradient<true>(sum, grad.grad_penalty, z[g], a, inverse, p));
  }
}

WeightPair run_forward(const GatedWeightArgs& args, bool with_penalty) {
  const Tensor &weight = args.weight, &log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const auto& slices = args.slices;
  Tensor v = torch::stable::empty_like(weight);
  Tensor penalty = torch::stable::empty({}, sum_type(weight));
  with_floating(weight, [&](auto zero) {
    using T = decltype(zero);
    using C = Arithmetic<T>;
    const T* w = weight.const_data_ptr<T>();
    const T* a = log_alpha.const_data_ptr<T>();
    T* out = v.mutable_data_ptr<T>();
    advise_huge_pages(out, weight.numel() * static_cast<int64_t>(sizeof(T)));
    double sum;
    if (slices) {
      std::vector<C> z(slices->gates);
      sum = draw_gates(a, slices->gates, noise, gate.params<C>(), with_penalty, z.data());
      multiply_slices(w, z.data(), *slices, out);
    } else {
      sum = forward_elements(w, a, weight.numel(), noise, gate.params<C>(), with_penalty, out);
    }
    *penalty.mutable_data_ptr<C>() = static_cast<C>(sum);
  });
  return {v, penalty};
}

WeightPair run_backward(const GatedWeightArgs& args, const Tensor& grad_v, const OptionalTensor& grad_penalty,
                        const OptionalTensor& v) {
  const Tensor &weight = args.weight, &log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  const auto& slices = args.slices;
  Tensor grad_weight = torch::stable::empty_like(weight);
  Tensor grad_log_alpha = torch::stable::empty_like(log_alpha);
  with_floating(weight, [&](auto zero) {
    using T = decltype(zero);
    using C = Arithmetic<T>;
    const Gradients<T> grad{grad_v.const_data_ptr<T>(),
                            grad_penalty.has_value() ? *grad_penalty->const_data_ptr<C>() : C(0),
                            v.has_value() ? v->const_data_ptr<T>() : nullptr, grad_weight.mutable_data_ptr<T>(),
                            grad_log_alpha.mutable_data_ptr<T>()};
    const T* w = weight.const_data_ptr<T>();
    const T* a = log_alpha.const_data_ptr<T>();
    advise_huge_pages(grad.weight, weight.numel() * static_cast<int64_t>(sizeof(T)));
    advise_huge_pages(grad.log_alpha, log_alpha.numel() * static_cast<int64_t>(sizeof(T)));
    if (slices) {
      backward_slices(grad, w, a, *slices, noise, gate.params<C>());
    } else {
      backward_elements(grad, w, a, weight.numel(), noise, gate.params<C>());
    }
  });
  return {grad_weight, grad_log_alpha};
}

void run_backward_in_place(const GatedWeightArgs& args, Tensor& grad_v, Tensor& v, const OptionalTensor& grad_penalty) {
  const Tensor &weight = args.weight, &log_alpha = args.log_alpha;
  const auto& noise = args.noise;
  const auto& gate = args.gate;
  with_real(weight, [&](auto zero) {
    using T = decltype(zero);
    backward_elements_(grad_v.mutable_data_ptr<T>(), v.mutable_data_ptr<T>(),
                       grad_penalty.has_value() ? *grad_penalty->const_data_ptr<T>() : T(0), weight.const_data_ptr<T>(),
                       log_alpha.const_data_ptr<T>(), weight.numel(), noise, gate.params<T>());
  });
}

Tensor empty_large(const Tensor& like) {
  Tensor fresh = torch::stable::empty_like(like);
  advise_huge_pages(fresh.mutable_data_ptr(), like.numel() * static_cast<int64_t>(like.element_size()));
  return fresh;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("empty_large", TORCH_BOX(&empty_large));
  m.impl("gated_weight", TORCH_BOX(&gated_weight_op<&run_forward>));
  m.impl("gated_weight_backward", TORCH_BOX(&gated_weight_backward_op<&run_backward>));
  m.impl("gated_weight_backward_", TORCH_BOX(&gated_weight_backward_in_place_op<&run_backward_in_place>));
}

}  // namespace l0fast::cpu
