#pragma once

#include <cstdint>

namespace l0fast {

// A weight whose gates are one per slice along a dimension. It is seen as [outer, gates, inner]: rows and output
// channels have outer = 1, columns inner = 1.
struct Slices {
  int64_t outer, gates, inner;

  int64_t row() const { return gates * inner; }
  int64_t count() const { return outer * row(); }
};

}  // namespace l0fast
