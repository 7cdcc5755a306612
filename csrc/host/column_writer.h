// From the entries of one column, as they came, to the packed form: in order of rows, each row once, finite, no zeros.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace l0fast::host {

// Writes columns one behind the other.
template <typename Row, typename T>
struct ColumnWriter {
  Row* rows;
  T* values;

  // The rows must not decrease. Repeated ones are summed in double, in their order, and rounded once. Returns the
  // number of entries written.
  template <typename InRow, typename Value>
  int64_t write(int64_t column, const InRow* in_rows, const Value* in_values, int64_t length) {
    int64_t written = 0;
    bool finite = true;
    for (int64_t k = 0; k < length;) {
      const InRow row = in_rows[k];
      double sum = in_values[k];
      for (++k; k < length && in_rows[k] == row; ++k) sum += in_values[k];
      const T value = static_cast<T>(sum);
      finite &= std::abs(value) <= std::numeric_limits<T>::max();
      rows[written] = static_cast<Row>(row);
      values[written] = value;
      written += value != 0;  // a zero is overwritten by the next entry
    }
    if (!finite) fail(column, in_rows, in_values, length);
    rows += written;
    values += written;
    return written;
  }

 private:
  // Finds the first bad entry again, to say what and where.
  template <typename InRow, typename Value>
  [[noreturn]] static void fail(int64_t column, const InRow* in_rows, const Value* in_values, int64_t length) {
    for (int64_t k = 0; k < length;) {
      const int64_t begin = k;
      double sum = in_values[k];
      for (++k; k < length && in_rows[k] == in_rows[begin]; ++k) sum += in_values[k];
      if (std::isfinite(static_cast<T>(sum))) continue;
      const Value* bad = std::find_if(in_values + begin, in_values + k, [](Value v) { return !std::isfinite(v); });
      if (bad < in_values + k) fail_at("finite values", *bad, in_rows[begin], column);
      fail_at(std::is_same_v<T, float> ? "values within the range of float32" : "values within the range of float64",
              sum, in_rows[begin], column);
    }
    throw std::logic_error("column_writer: a fault was seen and not found again");
  }

  [[noreturn]] static void fail_at(const char* expected, double got, int64_t row, int64_t column) {
    char text[160];
    // printf may write "-nan", which says nothing.
    std::snprintf(text, sizeof text, "M: expected %s, got %g at row %lld, column %lld", expected,
                  std::isnan(got) ? std::abs(got) : got, static_cast<long long>(row), static_cast<long long>(column));
    throw std::invalid_argument(text);
  }
};

template <typename InRow>
bool rows_in_order(const InRow* rows, int64_t length) {
  bool ordered = true;
  for (int64_t k = 1; k < length; ++k) ordered &= rows[k - 1] <= rows[k];
  return ordered;
}

// Sorts a column by row into out_* (which may be the input), repeated rows in their order.
template <typename InRow, typename Value>
void sort_column(const InRow* rows, const Value* values, int64_t length, std::vector<std::pair<int32_t, Value>>& pairs,
                 int32_t* out_rows, Value* out_values) {
  pairs.resize(length);
  for (int64_t k = 0; k < length; ++k) pairs[k] = {static_cast<int32_t>(rows[k]), values[k]};
  std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (int64_t k = 0; k < length; ++k) std::tie(out_rows[k], out_values[k]) = pairs[k];
}

}  // namespace l0fast::host
