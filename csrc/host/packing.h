// Any sparse matrix -> compressed columns, in parallel. The result is the same bits on any number of threads.
#pragma once

#include <cstdint>

#include "host/pattern.h"

namespace l0fast::host {

// Row is uint16_t where every row index fits, else int32_t. The arrays have room for the entries of the input; of
// their pages only those that hold a result are touched.
template <typename Row, typename T>
struct Packed {
  int64_t* indptr;  // [n_records + 1]
  Row* rows;
  T* values;
};

// Fills `out` and returns its number of nonzeros. Throws std::invalid_argument with a message about "M".
template <typename Index, typename Value, typename Row, typename T>
int64_t pack_columns(const Pattern<Index>& m, const Value* values, const Packed<Row, T>& out, int64_t threads);

}  // namespace l0fast::host
