#pragma once

#include "math/elementary.h"

namespace l0fast::cpu {

// A sum in double over sixteen lanes: a fixed order that the vectoriser can keep.
template <typename T>
L0FAST_HD double lane_sum(const T* x, int64_t count) {
  double lane[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int j = 0; j < 16; ++j) lane[j] += static_cast<double>(x[i + j]);
  for (int j = 0; i < count; ++i, ++j) lane[j] += static_cast<double>(x[i]);
  for (int width = 8; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) lane[j] += lane[j + width];
  return lane[0];
}

}  // namespace l0fast::cpu
