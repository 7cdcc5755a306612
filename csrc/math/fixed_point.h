// Totals as integers. Sums of integers do not depend on the order in which a thousand threads add: the same bits come
// out of every run, whatever the grid, and a GPU adds integers in shared memory natively where floats go through a
// loop.
//
// A contribution w value is held as the integer nearest to (w 2^(bits - e_w)) (value 2^-e_j), with 2^e_w above every
// weight of the epoch and 2^e_j above every value of row j. Its rounding is at most 2^-bits of the row's largest
// possible contribution; no sum can overflow.
#pragma once

#include <cmath>

#include "math/elementary.h"

namespace l0fast {

using Fixed = long long;  // as CUDA's atomics name 64 bits

// Exponents are held to where 2^-e and 2^e are both normal numbers of the type, which leaves values below 2^(e + 2).
template <typename T>
constexpr int kMostExponent = sizeof(T) == 4 ? 126 : 1022;
constexpr int kLeastExponent = -126, kExponentSlack = 2;

// e with |x| < 2^e; 0, NaN and infinities give the least.
template <typename T>
L0FAST_HD int exponent_above(T x) {
  if (!(x != T(0)) || !(x - x == T(0))) return kLeastExponent;
  int e;
  (void)std::frexp(x, &e);
  return e;
}

template <typename T>
L0FAST_HD int row_exponent(int exponent) {
  return exponent < kLeastExponent ? kLeastExponent : exponent > kMostExponent<T> ? kMostExponent<T> : exponent;
}

// 2^e where it is a normal number.
template <typename T>
L0FAST_HD T power_of_two(int e) {
  if constexpr (sizeof(T) == 4) {
    return bits_as<float>(static_cast<uint32_t>(e + 127) << 23);
  } else {
    return bits_as<double>(static_cast<uint64_t>(e + 1023) << 52);
  }
}

// How many bits a contribution may have so that a row of n_records of them stays below 2^62. In float no more than 40:
// most contributions then fit 32 bits, and an addition is one atomic instead of two.
template <typename T>
int contribution_bits(int64_t n_records) {
  int count_bits = 1;
  while (count_bits < 40 && (int64_t{1} << count_bits) < n_records) ++count_bits;
  const int most = 62 - kExponentSlack - count_bits;
  return sizeof(T) == 4 && most > 40 ? 40 : most;
}

// A weight below 2^e_w, made ready to be multiplied with a row's scaled values.
template <typename T>
L0FAST_HD T scaled_weight(T weight, int e_w, int bits) {
  return static_cast<T>(std::ldexp(static_cast<double>(weight), bits - e_w));
}

// The sum of a row as a number.
L0FAST_HD double total_of(Fixed sum, int e_j, int e_w, int bits) {
  return std::ldexp(static_cast<double>(sum), e_j + e_w - bits);
}

}  // namespace l0fast
