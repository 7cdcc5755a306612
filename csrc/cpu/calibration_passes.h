// The passes of an epoch over the records, for calibration and regression alike (DESIGN 6).
//
// The matrix is read once an epoch, not twice: as soon as the backward pass has stepped the records of a block, their
// gates for the next epoch are drawn and their columns, still in the cache, are scattered into the next totals.
#pragma once

#include <vector>

#include "cpu/columns.h"

namespace l0fast::cpu {

template <typename T>
struct State {
  T *log_weight, *log_alpha, *weight_first, *weight_second, *alpha_first, *alpha_second;  // [n_records]
  const T *anchor, *low, *high;                                                           // [n_records] or nullptr
  T* gate;                                                                                // [n_records] z
  const T* slopes;                                                                        // [n_targets] r
  const int64_t* seed;
  int64_t first_index;
  StepParams<T> step;  // its adam is that of the step at hand
};

template <typename T, typename Row>
class Passes {
 public:
  Passes(const State<T>& state, const Columns<T, Row>& matrix)
      : state_(state),
        matrix_(matrix),
        bounds_(split_columns(matrix.indptr, matrix.n_records, matrix.n_targets)),
        totals_(parts(), matrix.n_targets),
        sums_(parts()),
        open_(parts()) {}

  // Draws the gates of an epoch and leaves the totals they give. Without gates, z is what it was: 1.
  void forward(int64_t epoch) {
    for_each_part(parts(), [&](int64_t part) {
      double* own = totals_.cleared(part);
      open_[part] = 0;
      for_each_block_of(part, [&](int64_t i, int64_t length) { open_[part] += scatter(epoch, i, length, own); });
    });
  }

  // Gradients and Adam for an epoch and, unless it is the last, the forward pass of the next one.
  StepSums step(int64_t epoch, const AdamParams<T>& adam, bool last) {
    state_.step.adam = adam;
    for_each_part(parts(), [&](int64_t part) {
      double* own = last ? nullptr : totals_.cleared(part);
      sums_[part] = {};
      open_[part] = 0;
      for_each_block_of(part, [&](int64_t i, int64_t length) {
        const StepSums block = step_block(i, length);
        sums_[part].probability += block.probability;
        sums_[part].squares += block.squares;
        if (!last) open_[part] += scatter(epoch + 1, i, length, own);
      });
    });
    StepSums sums;
    for (const StepSums& part : sums_) {
      sums.probability += part.probability;
      sums.squares += part.squares;
    }
    return sums;
  }

  // Calls fn(chunk, begin, end, total) for every chunk of the targets, total[0] being that of target begin.
  template <typename F>
  void for_each_chunk_of_totals(const F& fn) const {
    for_each_part(target_chunks(matrix_.n_targets), [&](int64_t chunk) {
      const int64_t begin = chunk * kTargetChunk, end = std::min(matrix_.n_targets, begin + kTargetChunk);
      double total[kTargetChunk];
      totals_.reduce(begin, end, total);
      fn(chunk, begin, end, total);
    });
  }

  int64_t open_gates() const {
    int64_t count = 0;
    for (const int64_t part : open_) count += part;
    return count;
  }

 private:
  int64_t parts() const { return static_cast<int64_t>(bounds_.size()) - 1; }

  template <typename F>
  void for_each_block_of(int64_t part, const F& fn) {
    for (int64_t i = bounds_[part]; i < bounds_[part + 1]; i += kBlock) fn(i, std::min(kBlock, bounds_[part + 1] - i));
  }

  int64_t scatter(int64_t epoch, int64_t i, int64_t length, double* own) {
    T* gate = state_.gate + i;
    if (state_.step.gates)
      gates_range(state_.log_alpha + i, length, state_.first_index + i, {state_.seed, static_cast<uint32_t>(epoch)},
                  state_.step.gate, gate);
    T weight[kBlock];
    OpenList open;
    weights_range(state_.log_weight + i, gate, length, state_.step.link, weight);
    list_open(gate, length, open);
    scatter_columns(matrix_, i, open, weight, own);
    return open.count;
  }

  StepSums step_block(int64_t i, int64_t length) {
    T gradient[kBlock];
    OpenList open;
    list_open(state_.gate + i, length, open);
    gather_columns(matrix_, i, open, state_.slopes, gradient);
    const auto from = [i](const T* array) { return array == nullptr ? nullptr : array + i; };
    return step_range({state_.log_weight + i, state_.log_alpha + i, state_.weight_first + i, state_.weight_second + i,
                       state_.alpha_first + i, state_.alpha_second + i, from(state_.anchor), from(state_.low),
                       from(state_.high), state_.gate + i, gradient},
                      length, state_.step);
  }

  State<T> state_;
  const Columns<T, Row> matrix_;
  const std::vector<int64_t> bounds_;  // [parts + 1]
  PartTotals totals_;
  std::vector<StepSums> sums_;
  std::vector<int64_t> open_;
};

}  // namespace l0fast::cpu
