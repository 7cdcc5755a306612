// Reads and writes of kWidth neighbouring elements, 16 bytes at a time; they arrive in the arithmetic type.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "math/elementary.h"
#include "math/storage.h"

namespace l0fast::cuda {

// How many elements a thread takes at once: 16 bytes or more, and at least a whole Philox block.
template <typename T>
constexpr int kWidth = sizeof(T) >= 4 ? 4 : 8;

template <typename T, int kCount>
struct alignas(kCount * sizeof(T)) Vector {
  T element[kCount];
};

template <typename T, int kWidthOfPack>
constexpr int kChunk = kWidthOfPack* int(sizeof(T)) <= 16 ? kWidthOfPack : 16 / int(sizeof(T));

// kW > 1: x is 16-byte aligned.
template <int kW, typename T>
__device__ __forceinline__ void load(const T* __restrict__ x, Arithmetic<T> (&out)[kW]) {
  constexpr int kC = kChunk<T, kW>;
#pragma unroll
  for (int c = 0; c < kW; c += kC) {
    const Vector<T, kC> v = *reinterpret_cast<const Vector<T, kC>*>(x + c);
#pragma unroll
    for (int k = 0; k < kC; ++k) out[c + k] = static_cast<Arithmetic<T>>(v.element[k]);
  }
}

template <int kW, typename T>
__device__ __forceinline__ void store(const Arithmetic<T> (&x)[kW], T* __restrict__ out) {
  constexpr int kC = kChunk<T, kW>;
#pragma unroll
  for (int c = 0; c < kW; c += kC) {
    Vector<T, kC> v;
#pragma unroll
    for (int k = 0; k < kC; ++k) v.element[k] = static_cast<T>(x[c + k]);
    *reinterpret_cast<Vector<T, kC>*>(out + c) = v;
  }
}

template <typename... Pointers>
bool aligned16(const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace l0fast::cuda
