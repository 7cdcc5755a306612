// The special function unit at its documented worst (PTX ISA, ex2.approx and rcp.approx): every result is off by the
// largest relative error allowed, in a direction that the argument's bits pick.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace l0fast {

inline float at_worst(float x, double exact, double relative_error) {
  if (!(exact >= 0x1p-126 && exact < 0x1p127)) return exact < 0x1p-126 ? 0.0f : static_cast<float>(exact);
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return static_cast<float>(exact * ((bits * 2654435761u) >> 31 ? 1 + relative_error : 1 - relative_error));
}

inline float exp2_approx(float x) {
  return at_worst(x, std::exp2(static_cast<double>(x)), 0x1p-22);
}

// For positive x, which is all that the formulas ask for.
inline float reciprocal_approx(float x) {
  return at_worst(x, 1 / static_cast<double>(x), 0x1p-23);
}

}  // namespace l0fast
