// Counter-based noise: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
// A draw is a pure function of (seed, stream, index), so backward recomputes what forward drew.
#pragma once

#include "math/elementary.h"

namespace l0fast {

struct PhiloxKey {
  uint32_t low, high;
};

L0FAST_HD PhiloxKey philox_key(int64_t seed) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  return {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}

struct PhiloxCounter {
  uint32_t word0, word1, word2, word3;
};

// Words 0..3 are those of the elements 4*block .. 4*block + 3.
L0FAST_HD PhiloxCounter philox4x32_10(PhiloxKey key, uint32_t stream, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = stream, c3 = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key.low;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key.high;
    c3 = static_cast<uint32_t>(p0);
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// ((word >> 9) + 1/2) * 2^-23: exact in float, open at both ends.
template <typename T>
L0FAST_HD T uniform_from_word(uint32_t word) {
  return (static_cast<T>(static_cast<int32_t>(word >> 9)) + T(0.5)) * T(1.0 / 8388608.0);
}

}  // namespace l0fast
