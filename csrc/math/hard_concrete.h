// The Hard Concrete gate (Louizos, Welling, Kingma 2018, eqs. 10-13; DESIGN 3). Python twin: l0fast/reference/gates.py.
#pragma once

#include "math/elementary.h"
#include "math/philox.h"

namespace l0fast {

// The scalars of a gate, computed once per call in double and held in the kernel's type.
template <typename T>
struct GateParams {
  T inverse_temperature;       // 1 / beta of the sampled gate
  T eval_inverse_temperature;  // 1 / beta, or 1 where the deterministic gate leaves beta out
  T gamma, stretch;            // s_bar = s * stretch + gamma, stretch = zeta - gamma
  T inverse_stretch;
  T shift;          // beta * log(-gamma / zeta), subtracted inside the penalty
  T bound;          // log_alpha is held to [-bound, bound]
  T u_low, u_high;  // bounds of the uniform draw

  static GateParams make(double temperature, double gamma, double zeta, double bound, double u_bound,
                         bool eval_temperature) {
    return {T(1 / temperature),    T(eval_temperature ? 1 / temperature : 1.0), T(gamma), T(zeta - gamma),
            T(1 / (zeta - gamma)), T(temperature * std::log(-gamma / zeta)),    T(bound), T(u_bound),
            T(1 - u_bound)};
  }
};

template <typename T>
L0FAST_HD T stretched(T s, const GateParams<T>& p) {
  return s * p.stretch + p.gamma;
}

template <typename T>
L0FAST_HD T sampled_s(T log_alpha, T uniform, const GateParams<T>& p) {
  const T u = clamp_(uniform, p.u_low, p.u_high);
  return sigmoid_((logit_(u) + clamp_(log_alpha, -p.bound, p.bound)) * p.inverse_temperature);
}

template <typename T>
L0FAST_HD T deterministic_s(T log_alpha, const GateParams<T>& p) {
  return sigmoid_(clamp_(log_alpha, -p.bound, p.bound) * p.eval_inverse_temperature);
}

// z of the sampled gate, from its uniform draw.
template <typename T>
L0FAST_HD T sampled_gate(T log_alpha, T uniform, const GateParams<T>& p) {
  return clamp_(stretched(sampled_s(log_alpha, uniform, p), p), T(0), T(1));
}

template <typename T>
L0FAST_HD T deterministic_gate(T log_alpha, const GateParams<T>& p) {
  return clamp_(stretched(deterministic_s(log_alpha, p), p), T(0), T(1));
}

// 1 / beta of the gate that a call evaluates: sampled with a seed, deterministic without.
template <typename T>
L0FAST_HD T inverse_temperature(const GateParams<T>& p, const Noise& noise) {
  return noise.seed != nullptr ? p.inverse_temperature : p.eval_inverse_temperature;
}

// dz/dlog_alpha from the gate itself: where 0 < z < 1, s = (z - gamma) / stretch; elsewhere the clamp kills it.
template <typename T>
L0FAST_HD T gate_slope(T z, T log_alpha, T inverse_temperature, const GateParams<T>& p) {
  const T s = (z - p.gamma) * p.inverse_stretch;
  const T slope = p.stretch * s * (T(1) - s) * inverse_temperature;
  const bool open = (z > T(0)) & (z < T(1)) & (log_alpha >= -p.bound) & (log_alpha <= p.bound);
  return open ? slope : T(0);
}

// P(z != 0).
template <typename T>
L0FAST_HD T active_probability(T log_alpha, const GateParams<T>& p) {
  return sigmoid_(clamp_(log_alpha, -p.bound, p.bound) - p.shift);
}

// d active_probability / d log_alpha, given the probability.
template <typename T>
L0FAST_HD T active_slope(T probability, T log_alpha, const GateParams<T>& p) {
  const bool inside = (log_alpha >= -p.bound) & (log_alpha <= p.bound);
  return inside ? probability * (T(1) - probability) : T(0);
}

}  // namespace l0fast
