// Work on compressed columns: the gather (backward) and the scatter (forward) over the open columns of a block, and the
// split of the columns into parts. A part is summed by one thread into totals of its own, and the number of parts
// depends on the problem alone: the same bits come out on any number of threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "cpu/ranges.h"

namespace l0fast::cpu {

// M [n_targets, n_records] in compressed columns. Row is uint16_t where n_targets allows, else int32_t.
template <typename T, typename Row>
struct Columns {
  const int64_t* indptr;  // [n_records + 1]
  const Row* rows;        // [nnz]
  const T* values;        // [nnz]
  int64_t n_targets, n_records;
  int64_t groups;  // strip_groups(nnz, n_records): how the mostly open blocks are worked through

  int64_t nnz() const { return indptr[n_records]; }
};

// The records of a block whose gate is not zero, by their place in the block. Not those whose weight is: under the
// identity link a weight of 0 behind an open gate still has a gradient.
struct OpenList {
  int32_t place[kBlock];
  int32_t count, length;

  // Whether reading the closed columns too, in one stream, is cheaper than picking out the open ones.
  bool mostly_open() const { return 2 * count >= length; }
};

template <typename T>
void list_open(const T* gate, int64_t count, OpenList& open) {
  int32_t found = 0;
  // Branch-free: which gates are open is noise, and a mispredicted branch costs more than a store.
  for (int64_t i = 0; i < count; ++i) {
    open.place[found] = static_cast<int32_t>(i);
    found += gate[i] != T(0);
  }
  open.count = found;
  open.length = static_cast<int32_t>(count);
}

// gradient[i] = sum_k value_k r[row_k] over column `first + i`, for the open i; 0 for the others of the block.
// totals[row_k] += weight[i] value_k, for the open i.
#define L0FAST_DECLARE_COLUMNS(T, Row)                                                                             \
  void gather_columns(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* r /* [n_targets] */, \
                      T* gradient /* [open.length] */);                                                            \
  void scatter_columns(const Columns<T, Row>& m, int64_t first, const OpenList& open,                              \
                       const T* weight /* [open.length] */, double* totals /* [n_targets] */);

L0FAST_DECLARE_COLUMNS(float, uint16_t)
L0FAST_DECLARE_COLUMNS(float, int32_t)
L0FAST_DECLARE_COLUMNS(double, uint16_t)
L0FAST_DECLARE_COLUMNS(double, int32_t)
#undef L0FAST_DECLARE_COLUMNS

// Whether 0 <= row < n_targets for all of them.
bool rows_inside(const uint16_t* rows, int64_t count, int64_t n_targets);
bool rows_inside(const int32_t* rows, int64_t count, int64_t n_targets);

// How many parts: of equal work, counted as nonzeros plus what a record costs without any. A part is worth its private
// totals only if it has many more nonzeros than there are targets.
int64_t count_parts(int64_t nnz, int64_t n_records, int64_t n_targets);

// Bounds of the parts, [parts + 1].
std::vector<int64_t> split_columns(const int64_t* indptr, int64_t n_records, int64_t n_targets);

// Runs fn(0), ..., fn(parts - 1), each once, on torch's threads. Threads take parts as they come: which thread does
// which part has no say in the result.
template <typename F>
void for_each_part(int64_t parts, const F& fn) {
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t, int64_t) {
    for (int64_t part; (part = next.fetch_add(1, std::memory_order_relaxed)) < parts;) fn(part);
  };
  const int64_t threads = std::min<int64_t>(parts, torch::stable::get_num_threads());
  if (threads <= 1) {
    work(0, 1);
  } else {
    torch::stable::parallel_for(0, threads, 1, work);
  }
}

// Private totals of all parts and their sum in the order of the parts.
class PartTotals {
 public:
  PartTotals(int64_t parts, int64_t n_targets)
      : parts_(parts), n_targets_(n_targets), stride_((n_targets + 7) / 8 * 8), data_(parts * stride_) {}

  double* cleared(int64_t part) {
    double* totals = data_.data() + part * stride_;
    std::fill(totals, totals + n_targets_, 0.0);
    return totals;
  }

  // Sum of targets begin .. end - 1 over the parts -> total[0 .. end - begin - 1].
  void reduce(int64_t begin, int64_t end, double* total) const {
    std::copy(data_.data() + begin, data_.data() + end, total);
    for (int64_t part = 1; part < parts_; ++part) {
      const double* totals = data_.data() + part * stride_;
      for (int64_t j = begin; j < end; ++j) total[j - begin] += totals[j];
    }
  }

 private:
  int64_t parts_, n_targets_, stride_;
  std::vector<double> data_;
};

// Targets are handled in chunks of this many: the order of every sum over targets is fixed by it.
constexpr int64_t kTargetChunk = 1024;

inline int64_t target_chunks(int64_t n_targets) {
  return (n_targets + kTargetChunk - 1) / kTargetChunk;
}

}  // namespace l0fast::cpu
