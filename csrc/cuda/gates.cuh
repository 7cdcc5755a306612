// Gates of all elements of a tensor, as one elementwise pass.
#pragma once

#include "cuda/elementwise.cuh"
#include "cuda/noise.cuh"
#include "cuda/penalty.cuh"

namespace l0fast::cuda {

template <typename T>
struct DrawGates {
  using C = Arithmetic<T>;
  const T* log_alpha;  // [count]
  T* z;                // [count]
  int64_t first_index;
  Noise noise;
  GateParams<C> p;

  template <int kW>
  __device__ void operator()(int64_t i) const {
    C a[kW], gate[kW];
    load(log_alpha + i, a);
    draw_gates(a, first_index + i, noise, p, gate);
    store(gate, z + i);
  }
};

template <typename T>
struct OpenGates {
  T* z;  // [count]

  template <int kW>
  __device__ void operator()(int64_t i) const {
    T one[kW];
#pragma unroll
    for (int k = 0; k < kW; ++k) one[k] = T(1);
    store(one, z + i);
  }
};

// The sum of p.
template <typename T>
struct SumActive {
  using C = Arithmetic<T>;
  const T* log_alpha;  // [count]
  GateParams<C> p;

  template <int kW>
  __device__ double sum(int64_t i) const {
    C a[kW];
    load(log_alpha + i, a);
    return sum_of_probabilities(a, p);
  }
};

// How many gates are not 0.
template <typename T>
struct CountOpen {
  const T* z;  // [count]

  template <int kW>
  __device__ double sum(int64_t i) const {
    Arithmetic<T> gate[kW];
    load(z + i, gate);
    int open = 0;
#pragma unroll
    for (int k = 0; k < kW; ++k) open += gate[k] != 0;
    return open;
  }
};

}  // namespace l0fast::cuda
