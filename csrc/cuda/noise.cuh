// Gates of kW neighbouring elements: one Philox block for each four of them.
#pragma once

#include <cuda_runtime.h>

#include "math/hard_concrete.h"
#include "math/philox.h"

namespace l0fast::cuda {

// uniform_at(seed, stream, index + k) -> u[k]. The words of the blocks that the range touches are shifted into place by
// compile-time indices: an array indexed at run time would go through memory.
template <int kW, typename C>
__device__ __forceinline__ void draw(const Noise& noise, int64_t index, C (&u)[kW]) {
  const PhiloxKey key = philox_key(*noise.seed);
  const int64_t block = index / 4;
  const int shift = static_cast<int>(index % 4);
  constexpr int kBlocks = (kW + 3) / 4;
  uint32_t word[4 * kBlocks + 4];
#pragma unroll
  for (int b = 0; b <= kBlocks; ++b) {
    if (b == kBlocks && (shift == 0 || kW == 1)) break;
    const PhiloxCounter c = philox4x32_10(key, noise.stream, static_cast<uint64_t>(block + b));
    word[4 * b] = c.word0, word[4 * b + 1] = c.word1, word[4 * b + 2] = c.word2, word[4 * b + 3] = c.word3;
  }
  if (shift & 1) {
#pragma unroll
    for (int k = 0; k < 4 * kBlocks + 3; ++k) word[k] = word[k + 1];
  }
  if (shift & 2) {
#pragma unroll
    for (int k = 0; k < 4 * kBlocks + 2; ++k) word[k] = word[k + 2];
  }
#pragma unroll
  for (int k = 0; k < kW; ++k) u[k] = uniform_from_word<C>(word[k]);
}

// z of elements index .. index + kW - 1, sampled or, without a seed, deterministic.
template <int kW, typename C>
__device__ __forceinline__ void draw_gates(const C (&log_alpha)[kW], int64_t index, const Noise& noise,
                                           const GateParams<C>& p, C (&z)[kW]) {
  if (noise.seed == nullptr) {
#pragma unroll
    for (int k = 0; k < kW; ++k) z[k] = deterministic_gate(log_alpha[k], p);
    return;
  }
  C u[kW];
  draw(noise, index, u);
#pragma unroll
  for (int k = 0; k < kW; ++k) z[k] = sampled_gate(log_alpha[k], u[k], p);
}

}  // namespace l0fast::cuda
