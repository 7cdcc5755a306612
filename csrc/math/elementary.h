// exp, log, sigmoid and logit as branch-free polynomials, so that the compiler turns loops over them into vector code
// without -ffast-math. Float: relative error below 2e-7. Double: the C library's own (it is the reference's precision).
// NaN comes out as NaN: comparisons are written so that a NaN falls through them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define L0FAST_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define L0FAST_HD inline __attribute__((always_inline))
#else
#define L0FAST_HD inline
#endif

#if defined(L0FAST_EMULATED)
#include "special_functions.h"  // of the emulator
#endif

namespace l0fast {

#if defined(__CUDA_ARCH__)
// Relative error below 2^-22 (PTX ISA: ex2.approx, rcp.approx); results below the normal floats become 0.
L0FAST_HD float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

L0FAST_HD float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

template <typename To, typename From>
L0FAST_HD To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From), "bits_as: sizes differ");
  To y;
  memcpy(&y, &x, sizeof(y));
  return y;
}

// e^x. x is held to [-87.3, 88.37], where the result and its power of two are normal floats.
L0FAST_HD float exp_(float x) {
  x = x > 88.37f ? 88.37f : x;
  x = x < -87.3f ? -87.3f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to nearest, n in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float q = 1.381453988e-3f;
  q = q * r + 8.368745127e-3f;
  q = q * r + 4.166839079e-2f;
  q = q * r + 1.666652040e-1f;
  q = q * r + 4.999999343e-1f;
  const uint32_t power = (bits_as<uint32_t>(shifted) << 23) + 0x3f800000u;
  return (1.0f + (r + r * r * q)) * bits_as<float>(power);
}

L0FAST_HD double exp_(double x) {
  return exp(x);
}

// ln x for positive normal x.
L0FAST_HD float log_(float x) {
  const uint32_t bits = bits_as<uint32_t>(x);
  // The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
  const int32_t exponent = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
  const float f = bits_as<float>(bits - (static_cast<uint32_t>(exponent) << 23)) - 1.0f;
  float q = -7.634493020e-2f;
  q = q * f + 1.276157564e-1f;
  q = q * f - 1.316018306e-1f;
  q = q * f + 1.420175823e-1f;
  q = q * f - 1.662335730e-1f;
  q = q * f + 2.000122687e-1f;
  q = q * f - 2.500082104e-1f;
  q = q * f + 3.333333171e-1f;
  const float n = static_cast<float>(exponent);
  const float tail = f * f * (f * q - 0.5f) - n * 2.12194440e-4f;
  return (f + tail) + n * 0.693359375f;
}

L0FAST_HD double log_(double x) {
  return log(x);
}

// sigmoid_(x), and logit_(u) = ln(u / (1 - u)) for u in (0, 1). In float on a GPU divisions and the power go through
// the special function unit: exact divisions with their special cases alone would take as many instructions as a
// memory-bound kernel has time for.
#if defined(__CUDA_ARCH__) || defined(L0FAST_EMULATED)
// x / y for y in [2^-100, 2^126], with one step of Newton's.
L0FAST_HD float quotient_(float x, float y) {
  const float rough = reciprocal_approx(y), quotient = x * rough;
  return std::fma(rough, std::fma(-y, quotient, x), quotient);
}

L0FAST_HD float sigmoid_(float x) {
  // e^-x = 2^high (1 + ln 2 low), where high + low = -x log2(e) to twice the precision.
  const float high = x * -1.44269504f;
  const float low = std::fma(x, -1.92596299e-8f, std::fma(x, -1.44269504f, -high));
  const float power = exp2_approx(high < 126.0f ? high : 126.0f);
  return quotient_(1.0f, 1.0f + std::fma(power, 0.693147181f * low, power));
}

L0FAST_HD float logit_(float u) {
  return log_(quotient_(u, 1.0f - u));
}
#else
L0FAST_HD float sigmoid_(float x) {
  return 1.0f / (1.0f + exp_(-x));
}

L0FAST_HD float logit_(float u) {
  return log_(u / (1.0f - u));
}
#endif

L0FAST_HD double sigmoid_(double x) {
  return 1.0 / (1.0 + exp_(-x));
}

L0FAST_HD double logit_(double u) {
  return log_(u / (1.0 - u));
}

// x held to [low, high]; NaN stays NaN.
template <typename T>
L0FAST_HD T clamp_(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

#if defined(__CUDA_ARCH__)
// One instruction a bound, where comparison and selection would be two.
L0FAST_HD float clamp_(float x, float low, float high) {
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(low));
  asm("min.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(high));
  return x;
}
#endif

}  // namespace l0fast
