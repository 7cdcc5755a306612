#pragma once

#include <cuda_runtime.h>

#include "math/hard_concrete.h"

namespace l0fast::cuda {

// The sum of p over a pack, in double from the first term on: the width of the pack does not show in the result.
template <int kW, typename C>
__device__ __forceinline__ double sum_of_probabilities(const C (&log_alpha)[kW], const GateParams<C>& p) {
  double sum = 0;
#pragma unroll
  for (int k = 0; k < kW; ++k) sum += static_cast<double>(active_probability(log_alpha[k], p));
  return sum;
}

}  // namespace l0fast::cuda
