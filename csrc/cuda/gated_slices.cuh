// A weight with a gate per slice: the gates are drawn once into a workspace, in the arithmetic type.
#pragma once

#include "args/gated_weight.h"
#include "cuda/elementwise.cuh"
#include "cuda/noise.cuh"
#include "cuda/penalty.cuh"
#include "cuda/slices.cuh"
#include "math/gated_weight.h"

namespace l0fast::cuda {

template <typename T>
struct SliceGates {
  using C = Arithmetic<T>;
  const T* log_alpha;  // [gates]
  C* z;                // [gates]
  int64_t first_index;
  Noise noise;
  GateParams<C> p;

  template <int kW>
  __device__ void draw_into(int64_t i, C (&a)[kW]) const {
    C gate[kW];
    load(log_alpha + i, a);
    draw_gates(a, first_index + i, noise, p, gate);
    // The workspace has packs of 16 bytes of C, not of T.
#pragma unroll
    for (int k = 0; k < kW; ++k) z[i + k] = gate[k];
  }

  template <int kW>
  __device__ void operator()(int64_t i) const {
    C a[kW];
    draw_into(i, a);
  }

  template <int kW>
  __device__ double sum(int64_t i) const {
    C a[kW];
    draw_into(i, a);
    return sum_of_probabilities(a, p);
  }
};

template <typename T>
struct SliceProduct {
  using C = Arithmetic<T>;
  static constexpr int kPack = kWidth<T>;
  static constexpr bool kSum = false, kRows = true;
  const C* values;  // [gates] z
  const T* weight;  // [outer, gates, inner]
  T* v;

  template <int kW>
  __device__ void operator()(int64_t i, const C (&z)[kW]) const {
    C w[kW];
    load(weight + i, w);
#pragma unroll
    for (int k = 0; k < kW; ++k) w[k] *= z[k];
    store(w, v + i);
  }
};

// grad_weight, and the terms of the gates' gradients.
template <typename T>
struct SliceGradient {
  using C = Arithmetic<T>;
  static constexpr int kPack = kWidth<T>;
  static constexpr bool kSum = true, kRows = true;
  const C* values;           // [gates] z
  const T *grad_v, *weight;  // [outer, gates, inner]
  T* grad_weight;

  template <int kW>
  __device__ void operator()(int64_t i, const C (&z)[kW], C (&term)[kW]) const {
    C grad[kW];
    load(weight + i, term);
    load(grad_v + i, grad);
#pragma unroll
    for (int k = 0; k < kW; ++k) {
      term[k] *= grad[k];
      grad[k] *= z[k];
    }
    store(grad, grad_weight + i);
  }
};

// From a gate's gradient to that of its log_alpha.
template <typename T>
struct SliceSlope {
  using C = Arithmetic<T>;
  const C* grad_penalty;  // [1] or nullptr: 0
  const T* log_alpha;     // [gates]
  const C* z;             // [gates]
  T* gradient;            // [gates]
  Noise noise;
  GateParams<C> p;

  __device__ void operator()(int64_t g, double grad_gate) const {
    const C own = static_cast<C>(grad_gate), a = static_cast<C>(log_alpha[g]), inverse = inverse_temperature(p, noise);
    gradient[g] =
        static_cast<T>(grad_penalty == nullptr ? log_alpha_gradient<false>(own, C(0), z[g], a, inverse, p)
                                               : log_alpha_gradient<true>(own, *grad_penalty, z[g], a, inverse, p));
  }
};

template <typename T>
SliceGates<T> slice_gates(const Tensor& log_alpha, Tensor& z, const GateArgs& gate, const NoiseArgs& noise) {
  using C = Arithmetic<T>;
  return {log_alpha.const_data_ptr<T>(), z.mutable_data_ptr<C>(), noise.first_index, noise.noise(), gate.params<C>()};
}

// v = weight z; the sum of p -> penalty if it is given.
template <typename T>
void forward_slices(const Device& device, const Slices& s, const Tensor& weight, const Tensor& log_alpha,
                    const GateArgs& gate, const NoiseArgs& noise, Tensor& v, Tensor* penalty) {
  using C = Arithmetic<T>;
  Tensor z = torch::stable::new_empty(weight, {s.gates}, sum_type(weight));
  const SliceGates<T> gates = slice_gates<T>(log_alpha, z, gate, noise);
  if (penalty != nullptr) {
    for_each_sum<T>(device, s.gates, gates, *penalty, gates.log_alpha);
  } else {
    for_each<T>(device, s.gates, gates, gates.log_alpha);
  }
  const SliceProduct<T> f{z.const_data_ptr<C>(), weight.const_data_ptr<T>(), v.mutable_data_ptr<T>()};
  const SlicePlan plan = plan_slices(s, aligned16(f.weight, f.v) ? f.kPack : 1, false);
  for_each_slice(device, plan, f, nullptr);
}

template <typename T>
void backward_slices(const Device& device, const Slices& s, const Tensor& grad_v, const Arithmetic<T>* grad_penalty,
                     const Tensor& weight, const Tensor& log_alpha, const GateArgs& gate, const NoiseArgs& noise,
                     Tensor& grad_weight, Tensor& grad_log_alpha) {
  using C = Arithmetic<T>;
  Tensor z = torch::stable::new_empty(weight, {s.gates}, sum_type(weight));
  const SliceGates<T> gates = slice_gates<T>(log_alpha, z, gate, noise);
  for_each<T>(device, s.gates, gates, gates.log_alpha);
  const SliceGradient<T> f{z.const_data_ptr<C>(), grad_v.const_data_ptr<T>(), weight.const_data_ptr<T>(),
                           grad_weight.mutable_data_ptr<T>()};
  const SliceSlope<T> slope{grad_penalty, gates.log_alpha, f.values, grad_log_alpha.mutable_data_ptr<T>(),
                            gates.noise,  gates.p};
  const SlicePlan plan = plan_slices(s, aligned16(f.grad_v, f.weight, f.grad_weight) ? f.kPack : 1, true);
  sum_each_slice(device, plan, f, weight, slope);
}

}  // namespace l0fast::cuda
