#include "cpu/gated_ranges.h"

#include <limits>

#include "cpu/clones.h"
#include "cpu/lanes.h"
#include "cpu/storage.h"
#include "math/gated_weight.h"

namespace l0fast::cpu {
namespace {

// Below this a product with a gate may be subnormal, and the quotient inexact.
template <typename T>
constexpr T kSmallestDivisor = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();

template <typename T>
L0FAST_HD bool quotient_loop(const T* v, const T* weight, int64_t count, T* __restrict z) {
  const T least = kSmallestDivisor<T>;
  int32_t small = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T magnitude = weight[i] < T(0) ? -weight[i] : weight[i];
    small |= magnitude < least;
    z[i] = v[i] / weight[i];
  }
  return small == 0;
}

template <bool kPenalty, typename T>
L0FAST_HD void slopes_loop(const T* grad_v, T grad_penalty, const T* weight, const T* z, const T* log_alpha, T inverse,
                           int64_t count, const GateParams<T>& params, T* __restrict grad_weight,
                           T* __restrict grad_log_alpha) {
  const GateParams<T> p = params;
  for (int64_t i = 0; i < count; ++i) {
    grad_log_alpha[i] =
        log_alpha_gradient<kPenalty>(grad_v[i] * weight[i], grad_penalty, z[i], log_alpha[i], inverse, p);
    grad_weight[i] = grad_v[i] * z[i];
  }
}

}  // namespace

#define L0FAST_DEFINE_GATED_RANGES(T)                                                                               \
  L0FAST_CLONES void product_range(const T* weight, const T* z, int64_t count, T* v) {                              \
    T* __restrict out = v;                                                                                          \
    for (int64_t i = 0; i < count; ++i) out[i] = weight[i] * z[i];                                                  \
  }                                                                                                                 \
  L0FAST_CLONES bool quotient_range(const T* v, const T* weight, int64_t count, T* z) {                             \
    return quotient_loop(v, weight, count, z);                                                                      \
  }                                                                                                                 \
  L0FAST_CLONES void gated_slopes_range(const T* grad_v, T grad_penalty, const T* weight, const T* z,               \
                                        const T* log_alpha, T inverse_temperature, int64_t count,                   \
                                        const GateParams<T>& p, T* grad_weight, T* grad_log_alpha) {                \
    if (grad_penalty == T(0))                                                                                       \
      slopes_loop<false>(grad_v, grad_penalty, weight, z, log_alpha, inverse_temperature, count, p, grad_weight,    \
                         grad_log_alpha);                                                                           \
    else                                                                                                            \
      slopes_loop<true>(grad_v, grad_penalty, weight, z, log_alpha, inverse_temperature, count, p, grad_weight,     \
                        grad_log_alpha);                                                                            \
  }                                                                                                                 \
  L0FAST_CLONES void unit_slopes_range(const T* grad_v, const T* weight, const T* z, int64_t count, T* grad_weight, \
                                       T* grad_z) {                                                                 \
    T* __restrict first = grad_weight;                                                                              \
    T* __restrict second = grad_z;                                                                                  \
    for (int64_t i = 0; i < count; ++i) {                                                                           \
      second[i] = grad_v[i] * weight[i];                                                                            \
      first[i] = grad_v[i] * z[i];                                                                                  \
    }                                                                                                               \
  }                                                                                                                 \
  L0FAST_CLONES double sum_range(const T* x, int64_t count) {                                                       \
    return lane_sum(x, count);                                                                                      \
  }                                                                                                                 \
  L0FAST_CLONES void add_range(const T* x, int64_t count, double* sum) {                                            \
    double* __restrict out = sum;                                                                                   \
    for (int64_t i = 0; i < count; ++i) out[i] += static_cast<double>(x[i]);                                        \
  }

L0FAST_DEFINE_GATED_RANGES(float)
L0FAST_DEFINE_GATED_RANGES(double)
#undef L0FAST_DEFINE_GATED_RANGES

#define L0FAST_DEFINE_CONVERSIONS(Small)                                       \
  L0FAST_CLONES void widen_range(const Small* x, int64_t count, float* out) {  \
    float* __restrict y = out;                                                 \
    for (int64_t i = 0; i < count; ++i) y[i] = static_cast<float>(x[i]);       \
  }                                                                            \
  L0FAST_CLONES void narrow_range(const float* x, int64_t count, Small* out) { \
    Small* __restrict y = out;                                                 \
    for (int64_t i = 0; i < count; ++i) y[i] = static_cast<Small>(x[i]);       \
  }

L0FAST_DEFINE_CONVERSIONS(Half)
L0FAST_DEFINE_CONVERSIONS(BFloat16)
#undef L0FAST_DEFINE_CONVERSIONS

}  // namespace l0fast::cpu
