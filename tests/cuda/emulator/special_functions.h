// The special function unit with errors of the documented size (PTX ISA, ex2.approx and rcp.approx): every result is
// off by up to the largest relative error allowed, by a share that the argument's bits pick.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace l0fast {

inline float off_by(float x, double exact, double relative_error) {
  if (!(exact >= 0x1p-126 && exact < 0x1p127)) return exact < 0x1p-126 ? 0.0f : static_cast<float>(exact);
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  const double share = static_cast<double>(static_cast<int32_t>(bits * 2654435761u)) * 0x1p-31;  // [-1, 1)
  return static_cast<float>(exact * (1 + share * relative_error));
}

inline float exp2_approx(float x) {
  return off_by(x, std::exp2(static_cast<double>(x)), 0x1p-22);
}

// For positive x, which is all that the formulas ask for.
inline float reciprocal_approx(float x) {
  return off_by(x, 1 / static_cast<double>(x), 0x1p-23);
}

}  // namespace l0fast
