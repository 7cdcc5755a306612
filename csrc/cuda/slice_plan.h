// How the elements of [outer, gates, inner] are dealt out to threads, so that each thread keeps its gates and its loop
// divides nothing. Host code and index arithmetic alone: tests/cuda/plans_test.cpp checks it on a CPU. Everything
// depends on the shape alone, and so does the order of every sum.
#pragma once

#include <algorithm>
#include <numeric>

#include "math/elementary.h"
#include "math/slices.h"

namespace l0fast::cuda {

// What one thread does: elements begin, begin + step, ... below end; kW of them at each.
struct Walk {
  int64_t begin, end, step;
};

constexpr int kSliceThreads = 256, kSliceLanes = 32, kSliceRows = kSliceThreads / kSliceLanes;
// Blocks that fill any GPU of today more than once. A fixed number: sums have the same order on every device.
constexpr int64_t kSliceBlocks = 2048;

inline int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

inline int64_t round_up(int64_t a, int64_t b) {
  return divide_up(a, b) * b;
}

// Division by a number that the host knows, in a few instructions. Both are below 2^51, so that the estimate is wrong
// by one at most. (The compiler's own division of 64-bit numbers is a call, for which registers are spilled.)
struct Divisor {
  int64_t value = 1;
  double inverse = 1;

  Divisor() = default;
  explicit Divisor(int64_t n) : value(n), inverse(1 / static_cast<double>(n)) {}

  L0FAST_HD int64_t quotient(int64_t a) const {
    const int64_t q = static_cast<int64_t>(static_cast<double>(a) * inverse), rest = a - q * value;
    return q + (rest >= value) - (rest < 0);
  }

  L0FAST_HD int64_t remainder(int64_t a) const { return a - quotient(a) * value; }
};

// The flat array as rows of `width` elements, a multiple of gates * inner and of the pack: every column has one gate. A
// warp takes a tile of 32 packs, the block's 8 warps take every eighth row of a chunk of rows. Each chunk leaves a sum
// for each column: partial sums [chunks, width].
struct ColumnPlan {
  Slices slices{};
  Divisor tiles, gates, inner;  // gates and inner are those of slices
  int64_t count = 0, width = 0, chunk_rows = 0, chunks = 0;

  int64_t blocks() const { return tiles.value * chunks; }

  // The partial sums have the shape of a smaller [outer, gates, inner].
  Slices partials() const {
    return {slices.row() == 0 ? 0 : chunks * (width / slices.row()), slices.gates, slices.inner};
  }

  // The column of a thread's pack; width or more: none.
  template <int kW>
  L0FAST_HD int64_t column(int64_t block, int thread) const {
    return (tiles.remainder(block) * kSliceLanes + thread % kSliceLanes) * kW;
  }

  // The last row may be cut short: the pack at i may reach beyond count.
  template <int kW>
  L0FAST_HD Walk walk(int64_t block, int thread) const {
    const int64_t place = column<kW>(block, thread), chunk = tiles.quotient(block);
    if (place >= width) return {0, 0, 1};
    const int64_t end = (chunk + 1) * chunk_rows * width;
    return {(chunk * chunk_rows + thread / kSliceLanes) * width + place, end < count ? end : count, kSliceRows * width};
  }
};

// A team of threads, part of a warp or a whole block, takes a slice's `inner` neighbours or, of long ones, a chunk of
// them, and leaves their sum: partial sums [outer, gates, chunks].
struct RowPlan {
  Slices slices{};
  Divisor chunks, gates;  // of a slice; those of slices
  int64_t units = 0, chunk = 0;
  int team = 1, log2_team = 0;  // 1, 2, ... 32 threads or all 256

  int64_t blocks() const { return divide_up(units * team, kSliceThreads); }

  Slices partials() const { return {slices.outer, slices.gates, chunks.value}; }

  L0FAST_HD int64_t unit(int64_t block, int thread) const {
    return ((block * kSliceThreads) >> log2_team) + (thread >> log2_team);
  }

  L0FAST_HD int64_t gate(int64_t unit) const { return gates.remainder(chunks.quotient(unit)); }

  template <int kW>
  L0FAST_HD Walk walk(int64_t block, int thread) const {
    const int64_t own = unit(block, thread), slice = chunks.quotient(own);
    if (own >= units) return {0, 0, 1};
    const int64_t first = (own - slice * chunks.value) * chunk, last = first + chunk;
    const int64_t lane = thread & (team - 1);
    return {slice * slices.inner + first + lane * kW,
            slice * slices.inner + (last < slices.inner ? last : slices.inner), int64_t{team} * kW};
  }
};

// The sum over partial sums [outer, gates, inner] for each gate: a team of threads of a block for each. Neighbouring
// threads have neighbouring gates.
struct GatePlan {
  Slices partials{};
  Divisor inner;  // that of partials
  int team = 1, gates_of_block = kSliceThreads;

  int64_t blocks() const { return divide_up(partials.gates, gates_of_block); }

  L0FAST_HD int64_t gate(int64_t block, int thread) const { return block * gates_of_block + thread % gates_of_block; }

  // The numbers q of a thread's partial sums; place(gate, q) is where the q-th lies.
  L0FAST_HD Walk walk(int64_t block, int thread) const {
    if (gate(block, thread) >= partials.gates) return {0, 0, 1};
    return {thread / gates_of_block, partials.outer * partials.inner, team};
  }

  L0FAST_HD int64_t place(int64_t gate, int64_t q) const {
    const int64_t outer = inner.quotient(q);
    return (outer * partials.gates + gate) * partials.inner + q - outer * partials.inner;
  }
};

struct SlicePlan {
  bool over_columns = true;
  int pack = 1;  // elements at once
  ColumnPlan columns;
  RowPlan rows;

  int64_t blocks() const { return over_columns ? columns.blocks() : rows.blocks(); }
  Slices partials() const { return over_columns ? columns.partials() : rows.partials(); }
};

inline int64_t count_partials(const SlicePlan& plan) {
  return plan.partials().count();
}

// pack: how many elements the pointers' alignment allows at once. sums: whether partial sums are wanted.
inline SlicePlan plan_columns(const Slices& s, int pack, bool sums) {
  SlicePlan plan;
  plan.columns.slices = s;
  if (s.count() == 0) return plan;
  // Rows are tied together until their length is a multiple of the pack, and on until they fill a tile. Each tied row
  // has partial sums of its own, so that where rows are few, single elements cost less.
  int64_t tied = pack / std::gcd(s.row(), int64_t{pack});
  if (sums && s.outer < 16 * tied) tied = pack = 1;
  const int64_t tile = int64_t{kSliceLanes} * pack;
  tied *= std::max<int64_t>(1, tile / (s.row() * tied));
  tied = std::min(tied, round_up(s.outer, pack));
  plan.pack = pack;
  ColumnPlan& c = plan.columns;
  c.count = s.count();
  c.width = tied * s.row();
  c.tiles = Divisor(divide_up(c.width, tile));
  c.gates = Divisor(s.gates);
  c.inner = Divisor(s.inner);
  const int64_t rows = divide_up(s.outer, tied);
  // Few rows to a chunk: more blocks, but more sums to add up afterwards.
  const int64_t least = (sums ? 8 : 4) * kSliceRows;
  c.chunk_rows = round_up(std::max(least, divide_up(rows * c.tiles.value, kSliceBlocks)), kSliceRows);
  c.chunks = divide_up(rows, c.chunk_rows);
  return plan;
}

inline SlicePlan plan_rows(const Slices& s, int pack) {
  SlicePlan plan;
  plan.over_columns = false;
  plan.rows.slices = s;
  if (s.count() == 0) return plan;
  plan.pack = s.inner % pack == 0 ? pack : 1;
  RowPlan& r = plan.rows;
  const int64_t packs = s.inner / plan.pack;
  while (r.team < std::min<int64_t>(packs, kSliceLanes)) r.team *= 2;
  r.chunk = s.inner;
  if (packs > 8 * kSliceLanes) {
    r.team = kSliceThreads;
    const int64_t stride = int64_t{kSliceThreads} * plan.pack;
    r.chunk = round_up(std::max(4 * stride, divide_up(s.count(), kSliceBlocks)), stride);
  }
  while ((1 << r.log2_team) < r.team) ++r.log2_team;
  r.chunks = Divisor(divide_up(s.inner, r.chunk));
  r.gates = Divisor(s.gates);
  r.units = s.outer * s.gates * r.chunks.value;
  return plan;
}

// Over columns or over rows, whichever leaves fewer sums.
inline SlicePlan plan_slices(const Slices& s, int pack, bool sums) {
  const SlicePlan columns = plan_columns(s, pack, sums), rows = plan_rows(s, pack);
  return count_partials(columns) <= count_partials(rows) ? columns : rows;
}

inline GatePlan plan_gates(const Slices& partials) {
  GatePlan plan;
  plan.partials = partials;
  plan.inner = Divisor(std::max<int64_t>(1, partials.inner));
  while (plan.team < kSliceThreads && 8 * plan.team <= partials.outer * partials.inner) plan.team *= 2;
  plan.gates_of_block = kSliceThreads / plan.team;
  return plan;
}

}  // namespace l0fast::cuda
