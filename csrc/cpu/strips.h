// The passes over a mostly open block, as one stream of nonzeros.
//
// Columns of survey problems are short and of all lengths: a loop for each ends in a mispredicted branch, which costs
// as much as ten nonzeros. Here a strip of columns is one loop over its nonzeros, and what belongs to a column is done
// at a fixed width, whatever its length: its weight is written over that many entries (the next column overwrites what
// was too much), its sum is taken over that many under a mask. Only a column longer than the width needs a loop of its
// own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "math/elementary.h"

namespace l0fast::cpu {

constexpr int64_t kLane = 16;            // entries done at once: one AVX-512 register of floats
constexpr int64_t kMostGroups = 4;       // widest fixed width, in lanes
constexpr int64_t kStrip = 64;           // columns of a strip
constexpr int64_t kStripEntries = 4096;  // nonzeros of a strip at the most: its buffer stays in the first-level cache

// The fixed width for a matrix, in lanes: columns up to half as long again as the average fit. 0: the columns are so
// long that a loop for each is as good.
inline int64_t strip_groups(int64_t nnz, int64_t n_records) {
  const int64_t width = n_records > 0 ? 3 * nnz / (2 * n_records) : 0;
  const int64_t groups = (width + kLane - 1) / kLane;
  return groups <= kMostGroups ? std::max<int64_t>(groups, 1) : 0;
}

// A window of ones and zeros: from ones + kMost - count on, count words of ones and then zeros. As bits and not as a
// condition, which the compiler would turn into branches.
template <typename Word>
struct MaskWindow {
  static constexpr int64_t kMost = kMostGroups * kLane;
  Word ones[2 * kMost];

  constexpr MaskWindow() : ones() {
    for (int64_t k = 0; k < kMost; ++k) ones[k] = ~Word(0);
  }
};

template <typename T>
struct Mask {
  using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  static constexpr MaskWindow<Word> window{};

  static const Word* first(int64_t count) { return window.ones + MaskWindow<Word>::kMost - count; }
};

// Sum of p[0 .. length - 1]; p can be read up to the fixed width.
template <int kGroups, typename T>
L0FAST_HD T masked_sum(const T* __restrict p, int64_t length) {
  using Word = typename Mask<T>::Word;
  const Word* __restrict mask = Mask<T>::first(std::min<int64_t>(length, kGroups * kLane));
  T lane[kLane] = {};
  for (int64_t g = 0; g < kGroups * kLane; g += kLane)
    for (int64_t j = 0; j < kLane; ++j) lane[j] += bits_as<T>(bits_as<Word>(p[g + j]) & mask[g + j]);
  for (int64_t k = kGroups * kLane; k < length; ++k) lane[0] += p[k];
  // Written out: as a loop over the widths it would go through memory.
  T half[kLane / 2], quarter[kLane / 4];
  for (int32_t j = 0; j < kLane / 2; ++j) half[j] = lane[j] + lane[j + kLane / 2];
  for (int32_t j = 0; j < kLane / 4; ++j) quarter[j] = half[j] + half[j + kLane / 4];
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

// sum[i] = sum_k value_k r[row_k] over column i, for the columns of a strip: indptr [count + 1].
template <int kGroups, typename T, typename Row>
L0FAST_HD void gather_strip(const int64_t* indptr, int64_t count, const Row* __restrict rows,
                            const T* __restrict values, const T* __restrict r, T* __restrict sum) {
  const int64_t begin = indptr[0], entries = indptr[count] - begin;
  T product[kStripEntries + kGroups * kLane];
  for (int64_t k = 0; k < entries; ++k) product[k] = values[begin + k] * r[rows[begin + k]];
  for (int64_t k = entries; k < entries + kGroups * kLane; ++k) product[k] = T(0);
  for (int64_t i = 0; i < count; ++i)
    sum[i] = masked_sum<kGroups>(product + (indptr[i] - begin), indptr[i + 1] - indptr[i]);
}

// totals[row_k] += weight[i] value_k over the columns of a strip. A closed column adds zeros.
template <int kGroups, typename T, typename Row>
L0FAST_HD void scatter_strip(const int64_t* indptr, int64_t count, const Row* __restrict rows,
                             const T* __restrict values, const T* __restrict weight, double* __restrict totals) {
  const int64_t begin = indptr[0], entries = indptr[count] - begin;
  T spread[kStripEntries + kGroups * kLane];
  for (int64_t i = 0; i < count; ++i) {
    T* target = spread + (indptr[i] - begin);
    for (int64_t j = 0; j < kGroups * kLane; ++j) target[j] = weight[i];
    for (int64_t k = kGroups * kLane; k < indptr[i + 1] - indptr[i]; ++k) target[k] = weight[i];
  }
  for (int64_t k = 0; k < entries; ++k)
    totals[rows[begin + k]] += static_cast<double>(spread[k]) * static_cast<double>(values[begin + k]);
}

}  // namespace l0fast::cpu
