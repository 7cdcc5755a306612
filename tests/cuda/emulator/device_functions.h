// Barriers, warp collectives, bit and rounding intrinsics, cached loads.
#pragma once

#include <limits>
#include <type_traits>

#include "device_types.h"

namespace emulator {

enum class Collective { barrier, barrier_count, barrier_and, barrier_or, warp_barrier, shuffle, ballot, all, any };

// Waits for the others (the whole block, or the lanes of the mask) and returns what the collective gives this thread.
uint64_t collect(Collective kind, uint32_t mask, uint64_t value, int source_lane);
int current_lane();
// Ends the process with a message that says which launch, block and thread did what.
[[noreturn]] void fail_in_thread(const char* what);

template <typename To, typename From>
To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  memcpy(&y, &x, sizeof(y));
  return y;
}

template <typename T>
T shuffle(uint32_t mask, T value, int source_lane) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = collect(Collective::shuffle, mask, bits, source_lane);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// First lane of the segment of `width` lanes that this one is in.
inline int segment(int width) {
  if (width < 1 || width > 32 || (width & (width - 1))) fail_in_thread("a shuffle's width is no power of two up to 32");
  return current_lane() & ~(width - 1);
}

template <typename To, typename From>
To round_saturated(From x) {
  if (std::isnan(x)) return sizeof(To) == 8 ? std::numeric_limits<To>::min() : To(0);
  const From rounded = std::nearbyint(x);
  if (rounded >= -static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::max();
  if (rounded < static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  return static_cast<To>(rounded);
}

}  // namespace emulator

inline void __syncthreads() {
  emulator::collect(emulator::Collective::barrier, 0, 0, 0);
}
inline int __syncthreads_count(int p) {
  return emulator::collect(emulator::Collective::barrier_count, 0, p != 0, 0);
}
inline int __syncthreads_and(int p) {
  return emulator::collect(emulator::Collective::barrier_and, 0, p != 0, 0);
}
inline int __syncthreads_or(int p) {
  return emulator::collect(emulator::Collective::barrier_or, 0, p != 0, 0);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::collect(emulator::Collective::warp_barrier, mask, 0, 0);
}
inline unsigned __ballot_sync(unsigned mask, int p) {
  return static_cast<unsigned>(emulator::collect(emulator::Collective::ballot, mask, p != 0, 0));
}
inline int __any_sync(unsigned mask, int p) {
  return emulator::collect(emulator::Collective::any, mask, p != 0, 0);
}
inline int __all_sync(unsigned mask, int p) {
  return emulator::collect(emulator::Collective::all, mask, p != 0, 0);
}

// The source lanes are those of the PTX instruction: it looks at five bits, and leaves the value where it finds no
// lane.
#define L0FAST_SHUFFLES(T)                                                                 \
  inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {               \
    const int first = emulator::segment(width);                                            \
    return emulator::shuffle(mask, value, first | (source & (width - 1)));                 \
  }                                                                                        \
  inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {        \
    const int lane = emulator::current_lane(), from = lane - static_cast<int>(delta & 31); \
    return emulator::shuffle(mask, value, from < emulator::segment(width) ? lane : from);  \
  }                                                                                        \
  inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {      \
    const int lane = emulator::current_lane(), from = lane + static_cast<int>(delta & 31); \
    const int last = emulator::segment(width) + width - 1;                                 \
    return emulator::shuffle(mask, value, from > last ? lane : from);                      \
  }                                                                                        \
  inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {             \
    const int lane = emulator::current_lane(), from = lane ^ (bits & 31);                  \
    const int last = emulator::segment(width) + width - 1;                                 \
    return emulator::shuffle(mask, value, from > last ? lane : from);                      \
  }

L0FAST_SHUFFLES(int)
L0FAST_SHUFFLES(unsigned)
L0FAST_SHUFFLES(long)
L0FAST_SHUFFLES(unsigned long)
L0FAST_SHUFFLES(long long)
L0FAST_SHUFFLES(unsigned long long)
L0FAST_SHUFFLES(float)
L0FAST_SHUFFLES(double)
#undef L0FAST_SHUFFLES

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
  return __builtin_popcountll(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
  return __builtin_ffsll(x);
}
inline int __clz(int x) {
  return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>((uint64_t{x} * y) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(x) * y) >> 64);
}

inline int __float2int_rn(float x) {
  return emulator::round_saturated<int>(x);
}
inline long long __float2ll_rn(float x) {
  return emulator::round_saturated<long long>(x);
}
inline int __double2int_rn(double x) {
  return emulator::round_saturated<int>(x);
}
inline long long __double2ll_rn(double x) {
  return emulator::round_saturated<long long>(x);
}
inline float __ll2float_rn(long long x) {
  return static_cast<float>(x);
}
inline double __ll2double_rn(long long x) {
  return static_cast<double>(x);
}
inline float __double2float_rn(double x) {
  return static_cast<float>(x);
}
inline int __float_as_int(float x) {
  return emulator::bits_as<int>(x);
}
inline float __int_as_float(int x) {
  return emulator::bits_as<float>(x);
}
inline unsigned __float_as_uint(float x) {
  return emulator::bits_as<unsigned>(x);
}
inline float __uint_as_float(unsigned x) {
  return emulator::bits_as<float>(x);
}
inline long long __double_as_longlong(double x) {
  return emulator::bits_as<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return emulator::bits_as<double>(x);
}
inline float __fmaf_rn(float x, float y, float z) {
  return std::fma(x, y, z);
}
inline double __fma_rn(double x, double y, double z) {
  return std::fma(x, y, z);
}
inline float __saturatef(float x) {
  return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
}
inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}
inline double rsqrt(double x) {
  return 1 / std::sqrt(x);
}

// The toolkit has these for the arithmetic types in the global namespace.
#define L0FAST_MIN_MAX(T)  \
  inline T min(T x, T y) { \
    return y < x ? y : x;  \
  }                        \
  inline T max(T x, T y) { \
    return x < y ? y : x;  \
  }

L0FAST_MIN_MAX(int)
L0FAST_MIN_MAX(unsigned)
L0FAST_MIN_MAX(long)
L0FAST_MIN_MAX(unsigned long)
L0FAST_MIN_MAX(long long)
L0FAST_MIN_MAX(unsigned long long)
#undef L0FAST_MIN_MAX
inline float min(float x, float y) {
  return std::fmin(x, y);
}
inline float max(float x, float y) {
  return std::fmax(x, y);
}
inline double min(double x, double y) {
  return std::fmin(x, y);
}
inline double max(double x, double y) {
  return std::fmax(x, y);
}

template <typename T>
T __ldg(const T* p) {
  return *p;
}
#define L0FAST_CACHED(load, store) \
  template <typename T>            \
  T load(const T* p) {             \
    return *p;                     \
  }                                \
  template <typename T>            \
  void store(T* p, T value) {      \
    *p = value;                    \
  }

L0FAST_CACHED(__ldcs, __stcs)
L0FAST_CACHED(__ldcg, __stcg)
L0FAST_CACHED(__ldca, __stwb)
L0FAST_CACHED(__ldcv, __stwt)
#undef L0FAST_CACHED
