// From checked tensors to Columns: the one place where the contents of a matrix are validated before kernels read it.
#pragma once

#include <atomic>

#include "checks.h"
#include "cpu/columns.h"
#include "cpu/strips.h"

namespace l0fast::cpu {

template <typename T, typename Row>
Columns<T, Row> checked_columns(const char* op, const Tensor& indptr, const Tensor& rows, const Tensor& values,
                                int64_t n_targets) {
  const Columns<T, Row> m{indptr.const_data_ptr<int64_t>(),
                          static_cast<const Row*>(rows.const_data_ptr()),
                          values.const_data_ptr<T>(),
                          n_targets,
                          indptr.size(0) - 1,
                          strip_groups(values.size(0), indptr.size(0) - 1)};
  const int64_t nnz = values.size(0);
  if (m.indptr[0] != 0 || m.nnz() != nnz)
    fail(op, "indptr", "expected to run from 0 to ", nnz, ", got ", m.indptr[0], " to ", m.nnz());
  std::atomic<bool> ordered{true}, in_range{true};
  constexpr int64_t kChunk = 1 << 16;
  for_each_part((m.n_records + kChunk - 1) / kChunk, [&](int64_t part) {
    bool good = true;
    for (int64_t i = part * kChunk; i < std::min(m.n_records, (part + 1) * kChunk); ++i)
      good &= m.indptr[i] <= m.indptr[i + 1];
    if (!good) ordered = false;
  });
  for_each_part((nnz + kChunk - 1) / kChunk, [&](int64_t part) {
    const int64_t begin = part * kChunk;
    if (!rows_inside(m.rows + begin, std::min(kChunk, nnz - begin), n_targets)) in_range = false;
  });
  if (!ordered) fail(op, "indptr", "expected non-decreasing offsets, got a decrease");
  if (!in_range) fail(op, "rows", "expected 0 <= row < ", n_targets, ", got a row outside");
  return m;
}

// Calls fn(Columns<T, Row>) with the row type of the tensor.
template <typename T, typename F>
void with_columns(const char* op, const Tensor& indptr, const Tensor& rows, const Tensor& values, int64_t n_targets,
                  const F& fn) {
  if (rows.scalar_type() == ScalarType::UInt16) {
    fn(checked_columns<T, uint16_t>(op, indptr, rows, values, n_targets));
  } else {
    fn(checked_columns<T, int32_t>(op, indptr, rows, values, n_targets));
  }
}

}  // namespace l0fast::cpu
