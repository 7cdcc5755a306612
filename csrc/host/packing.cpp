#include "host/packing.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "host/column_block.h"
#include "host/column_writer.h"
#include "host/parallel.h"

namespace l0fast::host {
namespace {

// A thread's columns, and where its results go: behind the room that the columns before them may need.
struct Range {
  int64_t begin, end, offset, written;
};

// Ranges with about the same number of entries.
std::vector<Range> split_ranges(const int64_t* counts, int64_t n_records, int64_t nnz, int64_t threads) {
  std::vector<Range> ranges(threads);
  int64_t column = 0, entries = 0;
  for (int64_t t = 0; t < threads; ++t) {
    ranges[t] = {column, column, entries, 0};
    for (const int64_t goal = share(nnz, t + 1, threads); column < n_records && entries < goal; ++column)
      entries += counts[column];
    ranges[t].end = column;
  }
  ranges[threads - 1].end = n_records;  // empty columns at the end
  return ranges;
}

// Entries to read at a time. All blocks in flight together hold a sixth of the input, so that packing never needs much
// more than the result; smaller ones stay in cache, but a block visits every row once.
int64_t block_entries(int64_t n_targets, int64_t nnz, int64_t threads, bool ordered) {
  constexpr int64_t kLeast = 65536, kCached = 262144, kBlocks = 6;
  const int64_t most = std::max(kLeast, nnz / (threads * kBlocks));
  return ordered ? std::min(most, std::max(kCached, 8 * n_targets)) : most;
}

template <typename Index, typename Value, typename Row, typename T>
void pack_from_columns(const Pattern<Index>& m, const Value* values, const Range& range, int64_t* counts,
                       ColumnWriter<Row, T>& writer) {
  std::vector<std::pair<int32_t, Value>> pairs;
  std::vector<int32_t> sorted_rows;
  std::vector<Value> sorted_values;
  for (int64_t column = range.begin; column < range.end; ++column) {
    const int64_t begin = m.indptr[column], length = m.indptr[column + 1] - begin;
    if (rows_in_order(m.rows + begin, length)) {
      counts[column] = writer.write(column, m.rows + begin, values + begin, length);
    } else {
      sorted_rows.resize(length);
      sorted_values.resize(length);
      sort_column(m.rows + begin, values + begin, length, pairs, sorted_rows.data(), sorted_values.data());
      counts[column] = writer.write(column, sorted_rows.data(), sorted_values.data(), length);
    }
  }
}

template <typename Index, typename Value, typename Row, typename T>
void pack_by_blocks(const Pattern<Index>& m, const Value* values, const Range& range, bool ordered, int64_t entries,
                    int64_t* counts, ColumnWriter<Row, T>& writer) {
  std::vector<std::pair<int32_t, Value>> pairs;
  ColumnBlock<Index, Value> block(m, values, ordered, range.begin);
  for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
    int64_t total = counts[begin];
    for (end = begin + 1; end < range.end && total + counts[end] <= entries; ++end) total += counts[end];
    block.read(end, counts);
    for (int64_t i = 0; i < end - begin; ++i) {
      int32_t* rows = block.rows(i);
      // Rows were visited in order, so their columns are in order; entries of a coordinate format can be in any.
      if (m.format == Format::kCoordinates && !rows_in_order(rows, block.length(i)))
        sort_column(rows, block.values(i), block.length(i), pairs, rows, block.values(i));
      counts[begin + i] = writer.write(begin + i, rows, block.values(i), block.length(i));
    }
  }
}

// Moves the ranges together where entries were dropped, and turns counts into offsets.
template <typename Row, typename T>
int64_t close_gaps(const std::vector<Range>& ranges, int64_t n_records, const Packed<Row, T>& out) {
  int64_t nnz = 0;
  for (const Range& range : ranges) {
    if (range.offset != nnz) {
      std::memmove(out.rows + nnz, out.rows + range.offset, range.written * sizeof(Row));
      std::memmove(out.values + nnz, out.values + range.offset, range.written * sizeof(T));
    }
    nnz += range.written;
  }
  out.indptr[0] = 0;
  for (int64_t i = 0; i < n_records; ++i) out.indptr[i + 1] += out.indptr[i];
  return nnz;
}

}  // namespace

template <typename Index, typename Value, typename Row, typename T>
int64_t pack_columns(const Pattern<Index>& m, const Value* values, const Packed<Row, T>& out, int64_t threads) {
  threads = useful_threads(threads, m.nnz);
  check_pattern(m, threads);
  int64_t* counts = out.indptr + 1;
  const bool ordered = count_columns(m, counts, threads);
  // A thread keeps a cursor per ordered row: as many threads as cost a byte per entry, at most.
  if (ordered) threads = std::clamp<int64_t>(m.nnz / (m.n_targets * 8), 1, threads);
  std::vector<Range> ranges = split_ranges(counts, m.n_records, m.nnz, threads);
  const int64_t entries = block_entries(m.n_targets, m.nnz, threads, ordered);
  run_parallel(threads, [&](int64_t t) {
    Range& range = ranges[t];
    ColumnWriter<Row, T> writer{out.rows + range.offset, out.values + range.offset};
    if (m.format == Format::kColumns) {
      pack_from_columns(m, values, range, counts, writer);
    } else {
      pack_by_blocks(m, values, range, ordered, entries, counts, writer);
    }
    range.written = writer.rows - (out.rows + range.offset);
  });
  return close_gaps(ranges, m.n_records, out);
}

#define L0FAST_DEFINE_PACK(Index, Value, Row, T) \
  template int64_t pack_columns(const Pattern<Index>&, const Value*, const Packed<Row, T>&, int64_t);
#define L0FAST_DEFINE_PACK_TO(Row, T)         \
  L0FAST_DEFINE_PACK(int32_t, float, Row, T)  \
  L0FAST_DEFINE_PACK(int32_t, double, Row, T) \
  L0FAST_DEFINE_PACK(int64_t, float, Row, T)  \
  L0FAST_DEFINE_PACK(int64_t, double, Row, T)

L0FAST_DEFINE_PACK_TO(uint16_t, float)
L0FAST_DEFINE_PACK_TO(uint16_t, double)
L0FAST_DEFINE_PACK_TO(int32_t, float)
L0FAST_DEFINE_PACK_TO(int32_t, double)
#undef L0FAST_DEFINE_PACK_TO
#undef L0FAST_DEFINE_PACK

}  // namespace l0fast::host
