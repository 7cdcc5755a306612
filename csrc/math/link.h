// How the trained parameter x of a record becomes its weight before the gate.
#pragma once

#include "math/elementary.h"

namespace l0fast {

// Shared with Python by value: the ops take the integer, l0fast/constants.py names it and a test compares the two.
enum class Link : int64_t { kExp = 0, kIdentity = 1 };

template <Link kLink, typename T>
L0FAST_HD T linked(T x) {
  if constexpr (kLink == Link::kExp) return exp_(x);
  return x;
}

// d linked(x) / dx, given linked(x).
template <Link kLink, typename T>
L0FAST_HD T link_slope(T value) {
  if constexpr (kLink == Link::kExp) return value;
  return T(1);
}

}  // namespace l0fast
