// Qualifiers, vector types and the built-in variables of device code.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __host__
#define __device__
#define __global__
#define __constant__
// A launch runs on one OS thread, so that its blocks and threads share these, and two launches do not.
#define __shared__ thread_local
#define __forceinline__ inline __attribute__((always_inline))
// libstdc++ writes __attribute__((__noinline__)): the toolkit's __noinline__ macro would break it, as it does there.
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define L0FAST_VECTOR(T, name)                                      \
  struct name##1 {                                                  \
    T x;                                                            \
  };                                                                \
  struct alignas(2 * sizeof(T)) name##2 {                           \
    T x, y;                                                         \
  };                                                                \
  struct name##3 {                                                  \
    T x, y, z;                                                      \
  };                                                                \
  struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { \
    T x, y, z, w;                                                   \
  };                                                                \
  inline name##1 make_##name##1(T x) {                              \
    return {x};                                                     \
  }                                                                 \
  inline name##2 make_##name##2(T x, T y) {                         \
    return {x, y};                                                  \
  }                                                                 \
  inline name##3 make_##name##3(T x, T y, T z) {                    \
    return {x, y, z};                                               \
  }                                                                 \
  inline name##4 make_##name##4(T x, T y, T z, T w) {               \
    return {x, y, z, w};                                            \
  }

L0FAST_VECTOR(char, char)
L0FAST_VECTOR(unsigned char, uchar)
L0FAST_VECTOR(short, short)
L0FAST_VECTOR(unsigned short, ushort)
L0FAST_VECTOR(int, int)
L0FAST_VECTOR(unsigned, uint)
L0FAST_VECTOR(long long, longlong)
L0FAST_VECTOR(unsigned long long, ulonglong)
L0FAST_VECTOR(float, float)
L0FAST_VECTOR(double, double)
#undef L0FAST_VECTOR

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

// Set before each thread is resumed; launches exclude each other.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;
