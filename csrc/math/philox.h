// Counter-based noise: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
// A draw is a pure function of (seed, stream, index), so backward recomputes what forward drew.
#pragma once

#include "math/elementary.h"

namespace l0fast {

// Where a call's noise comes from. seed == nullptr: deterministic gates.
struct Noise {
  const int64_t* seed;
  uint32_t stream;
};

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

L0FAST_HD uint32_t high_word(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

// One of the ten rounds, with the round's key.
L0FAST_HD PhiloxCounter philox_round(PhiloxCounter c, PhiloxKey key) {
  constexpr uint32_t m0 = 0xD2511F53u, m2 = 0xCD9E8D57u;
  return {high_word(c.word2, m2) ^ c.word1 ^ key.low, c.word2 * m2, high_word(c.word0, m0) ^ c.word3 ^ key.high,
          c.word0 * m0};
}

L0FAST_HD PhiloxKey next_key(PhiloxKey key) {
  return {key.low + 0x9E3779B9u, key.high + 0xBB67AE85u};
}

L0FAST_HD PhiloxCounter philox_counter(uint32_t stream, uint64_t block) {
  return {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, 0};
}

// Words 0..3 are those of the elements 4*block .. 4*block + 3.
L0FAST_HD PhiloxCounter philox4x32_10(PhiloxKey key, uint32_t stream, uint64_t block) {
  PhiloxCounter c = philox_counter(stream, block);
  for (int round = 0; round < 10; ++round, key = next_key(key)) c = philox_round(c, key);
  return c;
}

// ((word >> 9) + 1/2) * 2^-23: exact in float, open at both ends.
template <typename T>
L0FAST_HD T uniform_from_word(uint32_t word) {
  return (static_cast<T>(static_cast<int32_t>(word >> 9)) + T(0.5)) * T(1.0 / 8388608.0);
}

}  // namespace l0fast
