#include "cpu/columns.h"

#include "cpu/clones.h"
#include "cpu/strips.h"

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
L0FAST_HD void gather_open(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* r, T* gradient) {
  const bool prefetch = !open.mostly_open();  // a mostly open block streams: the hardware fetches it better alone
  for (int32_t k = 0; k < open.count; ++k) {
    if (prefetch && k + kAhead < open.count) prefetch_column(m, first + open.place[k + kAhead]);
    const int64_t column = first + open.place[k], begin = m.indptr[column];
    gradient[open.place[k]] = column_dot(m.rows + begin, m.values + begin, m.indptr[column + 1] - begin, r);
  }
}

template <typename T, typename Row>
L0FAST_HD void scatter_column(const Columns<T, Row>& m, int64_t column, T weight, double* __restrict totals) {
  const double w = static_cast<double>(weight);
  for (int64_t j = m.indptr[column], end = m.indptr[column + 1]; j < end; ++j)
    totals[m.rows[j]] += w * static_cast<double>(m.values[j]);
}

template <typename T, typename Row>
L0FAST_HD void scatter_open(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* weight,
                            double* totals) {
  const bool prefetch = !open.mostly_open();
  for (int32_t k = 0; k < open.count; ++k) {
    if (prefetch && k + kAhead < open.count) prefetch_column(m, first + open.place[k + kAhead]);
    scatter_column(m, first + open.place[k], weight[open.place[k]], totals);
  }
}

template <int kGroups, typename T, typename Row>
L0FAST_HD void gather_strips(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* r, T* gradient) {
  T sum[kBlock];
  for (int64_t i = 0; i < open.length; i += kStrip) {
    const int64_t count = std::min<int64_t>(kStrip, open.length - i), *indptr = m.indptr + first + i;
    if (indptr[count] - indptr[0] <= kStripEntries) {
      gather_strip<kGroups>(indptr, count, m.rows, m.values, r, sum + i);
    } else {
      for (int64_t k = 0; k < count; ++k)
        sum[i + k] = column_dot(m.rows + indptr[k], m.values + indptr[k], indptr[k + 1] - indptr[k], r);
    }
  }
  for (int32_t k = 0; k < open.count; ++k) gradient[open.place[k]] = sum[open.place[k]];
}

template <int kGroups, typename T, typename Row>
L0FAST_HD void scatter_strips(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* weight,
                              double* totals) {
  for (int64_t i = 0; i < open.length; i += kStrip) {
    const int64_t count = std::min<int64_t>(kStrip, open.length - i), *indptr = m.indptr + first + i;
    if (indptr[count] - indptr[0] <= kStripEntries) {
      scatter_strip<kGroups>(indptr, count, m.rows, m.values, weight + i, totals);
    } else {
      for (int64_t k = 0; k < count; ++k) scatter_column(m, first + i + k, weight[i + k], totals);
    }
  }
}

template <typename T, typename Row>
L0FAST_HD void gather_loop(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* r, T* gradient) {
  std::fill(gradient, gradient + open.length, T(0));
  switch (open.mostly_open() ? m.groups : 0) {
    case 1:
      return gather_strips<1>(m, first, open, r, gradient);
    case 2:
      return gather_strips<2>(m, first, open, r, gradient);
    case 3:
      return gather_strips<3>(m, first, open, r, gradient);
    case 4:
      return gather_strips<4>(m, first, open, r, gradient);
    default:
      return gather_open(m, first, open, r, gradient);
  }
}

template <typename T, typename Row>
L0FAST_HD void scatter_loop(const Columns<T, Row>& m, int64_t first, const OpenList& open, const T* weight,
                            double* totals) {
  switch (open.mostly_open() ? m.groups : 0) {
    case 1:
      return scatter_strips<1>(m, first, open, weight, totals);
    case 2:
      return scatter_strips<2>(m, first, open, weight, totals);
    case 3:
      return scatter_strips<3>(m, first, open, weight, totals);
    case 4:
      return scatter_strips<4>(m, first, open, weight, totals);
    default:
      return scatter_open(m, first, open, weight, totals);
  }
}

// Unsigned is the row's type without its sign: a negative row is then above all others.
template <typename Unsigned, typename Row>
L0FAST_HD bool rows_inside_loop(const Row* __restrict rows, int64_t count, int64_t n_targets) {
  Unsigned high = 0;
  for (int64_t k = 0; k < count; ++k) high = std::max(high, static_cast<Unsigned>(rows[k]));
  return count == 0 || static_cast<int64_t>(high) < n_targets;
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

L0FAST_CLONES bool rows_inside(const uint16_t* rows, int64_t count, int64_t n_targets) {
  return rows_inside_loop<uint16_t>(rows, count, n_targets);
}
L0FAST_CLONES bool rows_inside(const int32_t* rows, int64_t count, int64_t n_targets) {
  return rows_inside_loop<uint32_t>(rows, count, n_targets);
}

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
