// The arguments that every gated op takes, and their checks: once, for the CPU and the CUDA launchers.
#pragma once

#include <optional>

#include "checks.h"
#include "math/hard_concrete.h"
#include "math/link.h"
#include "math/philox.h"
#include "math/storage.h"

namespace l0fast {

using OptionalTensor = std::optional<Tensor>;

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

// like: the tensor whose device the call runs on.
inline void check_gate(const char* op, const GateArgs& gate, const NoiseArgs& noise, const Tensor& like) {
  check_gate_scalars(op, gate.temperature, gate.gamma, gate.zeta);
  check_seed(op, noise.seed);
  check_device(op, "seed", noise.seed, like);
  check_stream(op, noise.stream, noise.first_index);
}

inline Link checked_link(const char* op, int64_t link) {
  if (link != 0 && link != 1) fail(op, "link", "expected 0 (exp) or 1 (identity), got ", link);
  return static_cast<Link>(link);
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

}  // namespace l0fast
