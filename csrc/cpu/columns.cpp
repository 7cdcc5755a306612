#include "cpu/columns.h"

#include "cpu/clones.h"

namespace l0fast::cpu {
namespace {

// How many open columns ahead to fetch: with most gates closed the columns are far apart and each is a cache miss.
constexpr int32_t kAhead = 4;
constexpr int64_t kCacheLine = 64;

template <typename X>
L0FAST_HD void prefetch_span(const X* begin, const X* end) {
  for (const char* p = reinterpret_cast<const char*>(begin); p < reinterpret_cast<const char*>(end); p += kCacheLine)
    __builtin_prefetch(p);
}

template <typename T, typename Row>
L0FAST_HD void prefetch_column(const Columns<T, Row>& m, int64_t column) {
  const int64_t begin = m.indptr[column], end = m.indptr[column + 1];
  prefetch_span(m.rows + begin, m.rows + end);
  prefetch_span(m.values + begin, m.values + end);
}

// Four running sums: enough to hide the latency of an addition, few enough for short columns.
template <typename T, typename Row>
L0FAST_HD T column_dot(const Row* __restrict rows, const T* __restrict values, int64_t length, const T* __restrict r) {
  T a = 0, b = 0, c = 0, d = 0;
  int64_t k = 0;
  for (; k + 4 <= length; k += 4) {
    a += values[k] * r[rows[k]];
    b += values[k + 1] * r[rows[k + 1]];
    c += values[k + 2] * r[rows[k + 2]];
    d += values[k + 3] * r[rows[k + 3]];
  }
  for (; k < length; ++k) a += values[k] * r[rows[k]];
  return (a + b) + (c + d);
}

template <typename T, typename Row>
L0FAST_HD void gather_loop(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* r, T* gradient) {
  const bool prefetch = open.wants_prefetch();
  std::fill(gradient, gradient + open.length, T(0));
  for (int32_t k = 0; k < open.count; ++k) {
    if (prefetch && k + kAhead < open.count) prefetch_column(m, first + open.place[k + kAhead]);
    const int64_t column = first + open.place[k], begin = m.indptr[column];
    gradient[open.place[k]] = column_dot(m.rows + begin, m.values + begin, m.indptr[column + 1] - begin, r);
  }
}

template <typename T, typename Row>
L0FAST_HD void scatter_loop(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* weight,
                            double* __restrict totals) {
  const bool prefetch = open.wants_prefetch();
  for (int32_t k = 0; k < open.count; ++k) {
    if (prefetch && k + kAhead < open.count) prefetch_column(m, first + open.place[k + kAhead]);
    const int64_t column = first + open.place[k], end = m.indptr[column + 1];
    const double w = static_cast<double>(weight[open.place[k]]);
    for (int64_t j = m.indptr[column]; j < end; ++j) totals[m.rows[j]] += w * static_cast<double>(m.values[j]);
  }
}

}  // namespace

#define L0FAST_DEFINE_COLUMNS(T, Row)                                                                                \
  L0FAST_CLONES void gather_columns(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* r,       \
                                    T* gradient) {                                                                   \
    gather_loop(m, first, open, r, gradient);                                                                        \
  }                                                                                                                  \
  L0FAST_CLONES void scatter_columns(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* weight, \
                                     double* totals) {                                                               \
    scatter_loop(m, first, open, weight, totals);                                                                    \
  }

L0FAST_DEFINE_COLUMNS(float, uint16_t)
L0FAST_DEFINE_COLUMNS(float, int32_t)
L0FAST_DEFINE_COLUMNS(double, uint16_t)
L0FAST_DEFINE_COLUMNS(double, int32_t)
#undef L0FAST_DEFINE_COLUMNS

namespace {
constexpr int64_t kRecordCost = 8;  // noise, exp, two Adam steps: about as long as eight nonzeros
}

int64_t count_parts(int64_t nnz, int64_t n_records, int64_t n_targets) {
  constexpr int64_t kLeastWork = 32768, kMostParts = 64, kNonzerosPerTotal = 64;
  const int64_t work = nnz + n_records * kRecordCost;
  return std::clamp<int64_t>(work / std::max(kLeastWork, kNonzerosPerTotal * n_targets), 1, kMostParts);
}

std::vector<int64_t> split_columns(const int64_t* indptr, int64_t n_records, int64_t n_targets) {
  const auto cost = [&](int64_t i) { return indptr[i] + i * kRecordCost; };
  const int64_t work = cost(n_records);
  const int64_t parts = count_parts(indptr[n_records], n_records, n_targets);
  std::vector<int64_t> bounds(parts + 1, 0);
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t share = work / parts * part;
    int64_t low = bounds[part - 1], high = n_records;  // first column at which the cost reaches the share
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (cost(middle) < share) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    bounds[part] = std::max(bounds[part - 1], low / 4 * 4);  // noise comes in fours
  }
  bounds[parts] = n_records;
  return bounds;
}

}  // namespace l0fast::cpu
