#include "host/pattern.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "host/parallel.h"

namespace l0fast::host {
namespace {

void check_pointer(const int64_t* indptr, int64_t length) {
  for (int64_t i = 0; i < length; ++i) {
    if (indptr[i] <= indptr[i + 1]) continue;
    std::ostringstream text;
    text << "M: expected a non-decreasing index pointer, got " << indptr[i + 1] << " after " << indptr[i]
         << " at position " << i + 1;
    throw std::invalid_argument(text.str());
  }
}

template <typename Index>
void check_indices(const char* axis, const Index* indices, int64_t nnz, int64_t limit, int64_t threads) {
  using Unsigned = std::make_unsigned_t<Index>;  // a negative index becomes a huge one: one comparison does for both
  const auto bound = static_cast<Unsigned>(std::min<int64_t>(limit - 1, std::numeric_limits<Index>::max()));
  constexpr int64_t kChunk = 4096;  // checked as a whole, so that the loop vectorises
  run_parallel(threads, [&](int64_t t) {
    const int64_t end = share(nnz, t + 1, threads);
    for (int64_t begin = share(nnz, t, threads); begin < end; begin += kChunk) {
      const int64_t stop = std::min(end, begin + kChunk);
      Unsigned highest = 0;
      for (int64_t k = begin; k < stop; ++k) highest = std::max(highest, static_cast<Unsigned>(indices[k]));
      if (highest <= bound) continue;
      int64_t k = begin;
      while (static_cast<Unsigned>(indices[k]) <= bound) ++k;
      std::ostringstream text;
      text << "M: expected " << axis << " indices from 0 to " << limit - 1 << ", got " << indices[k] << " at entry "
           << k;
      throw std::invalid_argument(text.str());
    }
  });
}

// Adds the entries begin .. end - 1, which may start and stop inside a row.
template <typename Index>
bool count_rows(const Pattern<Index>& m, int64_t begin, int64_t end, int64_t* counts) {
  bool ordered = true;
  const int64_t* row = std::upper_bound(m.indptr, m.indptr + m.n_targets + 1, begin) - 1;
  for (int64_t k = begin; k < end; ++row) {
    Index last = k > row[0] ? m.cols[k - 1] : 0;
    for (const int64_t stop = std::min(row[1], end); k < stop; ++k) {
      const Index column = m.cols[k];
      ++counts[column];
      ordered &= last <= column;
      last = column;
    }
  }
  return ordered;
}

}  // namespace

template <typename Index>
void check_pattern(const Pattern<Index>& m, int64_t threads) {
  if (m.format == Format::kRows) check_pointer(m.indptr, m.n_targets);
  if (m.format == Format::kColumns) check_pointer(m.indptr, m.n_records);
  if (m.rows != nullptr) check_indices("row", m.rows, m.nnz, m.n_targets, threads);
  if (m.cols != nullptr) check_indices("column", m.cols, m.nnz, m.n_records, threads);
}

template <typename Index>
bool count_columns(const Pattern<Index>& m, int64_t* counts, int64_t threads) {
  if (m.format == Format::kColumns) {
    for (int64_t i = 0; i < m.n_records; ++i) counts[i] = m.indptr[i + 1] - m.indptr[i];
    return false;
  }
  // Each further thread counts into an array of its own: as many as cost a byte per entry, at most.
  threads = std::min(threads, 1 + m.nnz / (m.n_records * static_cast<int64_t>(sizeof(int64_t))));
  std::vector<std::vector<int64_t>> own(threads);
  std::atomic<bool> ordered{m.format == Format::kRows};
  run_parallel(threads, [&](int64_t t) {
    if (t > 0) own[t].resize(m.n_records);
    int64_t* mine = t > 0 ? own[t].data() : counts;
    if (t == 0) std::fill(counts, counts + m.n_records, 0);
    const int64_t begin = share(m.nnz, t, threads), end = share(m.nnz, t + 1, threads);
    if (m.format == Format::kRows) {
      if (!count_rows(m, begin, end, mine)) ordered = false;
    } else {
      for (int64_t k = begin; k < end; ++k) ++mine[m.cols[k]];
    }
  });
  run_parallel(threads, [&](int64_t t) {
    const int64_t begin = share(m.n_records, t, threads), end = share(m.n_records, t + 1, threads);
    for (int64_t other = 1; other < threads; ++other)
      for (int64_t i = begin; i < end; ++i) counts[i] += own[other][i];
  });
  return ordered;
}

#define L0FAST_DEFINE_PATTERN(Index)                           \
  template void check_pattern(const Pattern<Index>&, int64_t); \
  template bool count_columns(const Pattern<Index>&, int64_t*, int64_t);

L0FAST_DEFINE_PATTERN(int32_t)
L0FAST_DEFINE_PATTERN(int64_t)
#undef L0FAST_DEFINE_PATTERN

}  // namespace l0fast::host
