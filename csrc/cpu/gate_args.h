// The scalar arguments that every gated op takes, checked once.
#pragma once

#include <optional>

#include "checks.h"
#include "cpu/columns.h"
#include "cpu/ranges.h"
#include "cpu/storage.h"

namespace l0fast::cpu {

struct GateArgs {
  double temperature, gamma, zeta, bound, u_bound;
  bool eval_temperature;

  template <typename T>
  GateParams<T> params() const {
    return GateParams<T>::make(temperature, gamma, zeta, bound, u_bound, eval_temperature);
  }
};

struct NoiseArgs {
  const std::optional<Tensor>& seed;
  int64_t stream, first_index;

  Noise noise() const {
    return {seed.has_value() ? seed->const_data_ptr<int64_t>() : nullptr, static_cast<uint32_t>(stream)};
  }
};

inline void check_gate(const char* op, const GateArgs& gate, const NoiseArgs& noise) {
  check_gate_scalars(op, gate.temperature, gate.gamma, gate.zeta);
  check_seed(op, noise.seed);
  check_stream(op, noise.stream, noise.first_index);
}

// 1 / beta of the gate that a call evaluates: sampled with a seed, deterministic without.
template <typename T>
T inverse_temperature(const GateParams<T>& p, const Noise& noise) {
  return noise.seed ? p.inverse_temperature : p.eval_inverse_temperature;
}

inline Link checked_link(const char* op, int64_t link) {
  if (link != 0 && link != 1) fail(op, "link", "expected 0 (exp) or 1 (identity), got ", link);
  return static_cast<Link>(link);
}

// Calls fn(first, length) for every block of `count` records, on torch's threads. A thread takes several blocks at
// once: a block can be less work than handing it out.
template <typename F>
void for_each_block(int64_t count, const F& fn) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  const int64_t group = std::clamp<int64_t>(blocks / 64, 1, 16);
  for_each_part((blocks + group - 1) / group, [&](int64_t part) {
    const int64_t end = std::min(count, (part + 1) * group * kBlock);
    for (int64_t i = part * group * kBlock; i < end; i += kBlock) fn(i, std::min(kBlock, end - i));
  });
}

// Calls fn(T{}) with the element type of a checked tensor.
template <typename F>
void with_real(const Tensor& t, const F& fn) {
  if (t.scalar_type() == ScalarType::Float) {
    fn(float{});
  } else {
    fn(double{});
  }
}

// The same for layers: fn(Half{}) and fn(BFloat16{}) too.
template <typename F>
void with_floating(const Tensor& t, const F& fn) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return fn(Half{});
    case ScalarType::BFloat16:
      return fn(BFloat16{});
    default:
      return with_real(t, fn);
  }
}

// The dtype of a sum over gates: float32 for the 16-bit types, which end at 65504 or have 8 bits.
inline ScalarType sum_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace l0fast::cpu
