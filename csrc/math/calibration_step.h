// What an epoch does to one record (DESIGN 3) beside Adam: the gradients before it, shrinkage and bounds after it.
#pragma once

#include "math/adam.h"
#include "math/hard_concrete.h"
#include "math/link.h"

namespace l0fast {

template <typename T>
struct StepParams {
  GateParams<T> gate;
  AdamParams<T> adam;
  T lambda_l0, twice_lambda_l2;
  T shrinkage;  // lr lambda_l1
  Link link;
  bool gates;
};

// dloss/dlog_weight. g: the matrix gradient; weight = linked(log_weight); ratio = weight / anchor and ratio_slope its
// derivative in log_weight.
template <Link kLink, typename T>
L0FAST_HD T weight_gradient(T g, T weight, T gate, T ratio, T ratio_slope, const StepParams<T>& p) {
  // (2 lambda q) q', not 2 lambda (q q'): with lambda 0 an overflowing square must not become 0 * inf.
  return g * link_slope<kLink>(weight) * gate + (p.twice_lambda_l2 * ratio) * ratio_slope;
}

// dloss/dlog_alpha. inverse: 1 / beta, or 0 without gates, where nothing pulls at log_alpha.
template <typename T>
L0FAST_HD T alpha_gradient(T g, T weight, T gate, T log_alpha, T probability, T inverse, const StepParams<T>& p) {
  return g * weight * gate_slope(gate, log_alpha, inverse, p.gate) +
         p.lambda_l0 * active_slope(probability, log_alpha, p.gate);
}

// The proximal step of lambda_l1 |parameter| in Adam's own metric: towards 0 by what Adam's step makes of a gradient of
// that size. second: already updated. A NaN is kept.
template <typename T>
L0FAST_HD T shrunk(T parameter, T second, T shrinkage, const AdamParams<T>& p) {
  const T scale = std::sqrt(second) * p.inverse_sqrt_correction + p.epsilon;
  const T size = std::abs(parameter) - shrinkage / scale;
  return size < T(0) ? T(0) : std::copysign(size, parameter);
}

template <typename T>
L0FAST_HD T at_least(T parameter, T low) {
  return parameter < low ? low : parameter;
}

template <typename T>
L0FAST_HD T at_most(T parameter, T high) {
  return parameter > high ? high : parameter;
}

}  // namespace l0fast
