// Elementwise loops of gated weights over a block of at most kBlock elements; see ranges.h.
#pragma once

#include "cpu/ranges.h"

namespace l0fast::cpu {

// product_range: v = weight z. quotient_range: z = v / weight; false where a weight is so small that v lost digits or
// all (z is then to be drawn again). gated_slopes_range: gradients of weight and log_alpha, from that of v and of the
// penalty. unit_slopes_range: gradient of weight, and grad_v weight, of which a slice's gate takes the sum.
#define L0FAST_DECLARE_GATED_RANGES(T)                                                                            \
  void product_range(const T* weight, const T* z, int64_t count, T* v);                                           \
  bool quotient_range(const T* v, const T* weight, int64_t count, T* z);                                          \
  void gated_slopes_range(const T* grad_v, T grad_penalty, const T* weight, const T* z, const T* log_alpha,       \
                          T inverse_temperature, int64_t count, const GateParams<T>& p, T* grad_weight,           \
                          T* grad_log_alpha);                                                                     \
  void unit_slopes_range(const T* grad_v, const T* weight, const T* z, int64_t count, T* grad_weight, T* grad_z); \
  double sum_range(const T* x, int64_t count);                                                                    \
  void add_range(const T* x, int64_t count, double* sum);

L0FAST_DECLARE_GATED_RANGES(float)
L0FAST_DECLARE_GATED_RANGES(double)
#undef L0FAST_DECLARE_GATED_RANGES

}  // namespace l0fast::cpu
