// Reads a block of neighbouring columns out of an input that is not laid out by columns. The block is scattered into
// a buffer that stays in cache; scattering straight into the whole result would miss at every entry.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "host/pattern.h"

namespace l0fast::host {

template <typename Index, typename Value>
class ColumnBlock {
 public:
  // Blocks are read from column `first` on, each one beginning where the last one ended. ordered: count_columns' word.
  ColumnBlock(const Pattern<Index>& m, const Value* in_values, bool ordered, int64_t first)
      : m_(m), in_values_(in_values), end_column_(first) {
    if (!ordered) return;
    cursor_.resize(m.n_targets);
    for (int64_t row = 0; row < m.n_targets; ++row)
      cursor_[row] = std::lower_bound(m.cols + m.indptr[row], m.cols + m.indptr[row + 1], first) - m.cols;
  }

  // Reads the columns up to `end`; counts[i] is the number of entries of column i of the matrix.
  void read(int64_t end, const int64_t* counts) {
    first_column_ = end_column_;
    end_column_ = end;
    place_.resize(end - first_column_);
    int64_t total = 0;
    for (size_t i = 0; i < place_.size(); ++i) {
      place_[i] = total;
      total += counts[first_column_ + i];
    }
    reserve(total);
    if (!cursor_.empty()) {
      follow_rows();
    } else if (m_.format == Format::kRows) {
      for (int64_t row = 0; row < m_.n_targets; ++row)
        scan(m_.indptr[row], m_.indptr[row + 1], [row](int64_t) { return row; });
    } else {
      scan(0, m_.nnz, [this](int64_t k) { return m_.rows[k]; });
    }
  }

  // After read: the i-th column of the block, its entries in the order of the input.
  int32_t* rows(int64_t i) { return rows_.get() + begin(i); }
  Value* values(int64_t i) { return values_.get() + begin(i); }
  int64_t length(int64_t i) const { return place_[i] - begin(i); }

 private:
  int64_t begin(int64_t i) const { return i > 0 ? place_[i - 1] : 0; }

  void reserve(int64_t total) {
    if (total <= capacity_) return;
    rows_.reset();
    values_.reset();
    rows_.reset(new int32_t[total]);  // not make_unique: it would clear what is written next anyway
    values_.reset(new Value[total]);
    capacity_ = total;
  }

  void put(int64_t row, int64_t column, Value value) {
    const int64_t k = place_[column - first_column_]++;
    rows_[k] = static_cast<int32_t>(row);
    values_[k] = value;
  }

  // Rows in order of columns: each goes on where the last block stopped in it.
  void follow_rows() {
    // Every row is somewhere else in memory: fetching its next two cache lines ahead of time halves the time.
    constexpr int64_t kAhead = 8, kLine = 64 / sizeof(Index);
    for (int64_t row = 0; row < m_.n_targets; ++row) {
      if (row + kAhead < m_.n_targets) {
        const int64_t next = cursor_[row + kAhead];
        for (const int64_t k : {next, next + kLine}) {
          __builtin_prefetch(m_.cols + k);
          __builtin_prefetch(in_values_ + k);
        }
      }
      int64_t k = cursor_[row];
      for (; k < m_.indptr[row + 1] && m_.cols[k] < end_column_; ++k) put(row, m_.cols[k], in_values_[k]);
      cursor_[row] = k;
    }
  }

  // Any order: looks at every entry and takes those of the block. First a list, without a branch: whether an entry
  // belongs here cannot be predicted.
  template <typename RowOf>
  void scan(int64_t begin, int64_t end, const RowOf& row_of) {
    constexpr int64_t kChunk = 512;
    int32_t found[kChunk];
    const auto width = static_cast<uint64_t>(end_column_ - first_column_);
    for (; begin < end; begin += kChunk) {
      const int64_t length = std::min(kChunk, end - begin);
      int64_t count = 0;
      for (int64_t k = 0; k < length; ++k) {
        found[count] = static_cast<int32_t>(k);
        count += static_cast<uint64_t>(m_.cols[begin + k] - first_column_) < width;
      }
      for (int64_t j = 0; j < count; ++j) {
        const int64_t k = begin + found[j];
        put(row_of(k), m_.cols[k], in_values_[k]);
      }
    }
  }

  const Pattern<Index>& m_;
  const Value* in_values_;
  int64_t first_column_ = 0, end_column_;
  std::vector<int64_t> cursor_;  // [n_targets] next entry of each row; empty where rows are not in order
  std::vector<int64_t> place_;   // per column of the block: where its next entry goes; in the end, where it ends
  std::unique_ptr<int32_t[]> rows_;
  std::unique_ptr<Value[]> values_;
  int64_t capacity_ = 0;
};

}  // namespace l0fast::host
