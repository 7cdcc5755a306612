// Loops over a weight with a gate per slice, seen as [outer, gates, inner].
#pragma once

#include <vector>

#include "cpu/gate_args.h"
#include "cpu/gated_ranges.h"
#include "math/slices.h"

namespace l0fast::cpu {

// A task is a range of rows of [outer, gates * inner], or where there is one row, a range of its gates. Their number
// depends on the shape alone, so that sums have one order on any number of threads.
class SliceTasks {
 public:
  explicit SliceTasks(const Slices& s) : slices_(s), units_(s.outer == 1 ? s.gates : s.outer) {
    tasks_ = std::min(units_, std::clamp<int64_t>(s.count() / kTaskElements, 1, kMostTasks));
  }

  int64_t count() const { return tasks_; }
  bool over_rows() const { return slices_.outer != 1; }
  int64_t begin(int64_t task) const { return units_ * task / tasks_; }

 private:
  static constexpr int64_t kTaskElements = 16384, kMostTasks = 64;
  Slices slices_;
  int64_t units_, tasks_;
};

// Calls fn(offset, length) for blocks of a task's elements.
template <typename F>
void for_each_slice_block(const Slices& s, const SliceTasks& tasks, int64_t task, const F& fn) {
  const int64_t unit = tasks.over_rows() ? s.row() : s.inner;
  const int64_t end = tasks.begin(task + 1) * unit;
  for (int64_t i = tasks.begin(task) * unit; i < end; i += kBlock) fn(i, std::min(kBlock, end - i));
}

// Calls fn(place in the block, length, gate) for the runs of elements of a block at `offset` that share a gate; where
// neighbours have gates of their own (inner = 1), for runs of elements with consecutive gates from `gate` on.
template <typename F>
void for_each_run(const Slices& s, int64_t offset, int64_t length, const F& fn) {
  const int64_t period = s.inner == 1 ? s.gates : s.inner;
  int64_t gate = s.inner == 1 ? offset % s.gates : offset / s.inner % s.gates;
  int64_t left = period - offset % period;
  for (int64_t i = 0; i < length; left = period) {
    const int64_t run = std::min(left, length - i);
    fn(i, run, gate);
    gate = s.inner == 1 || gate + 1 == s.gates ? 0 : gate + 1;
    i += run;
  }
}

// The gate of each element of a block.
template <typename C>
void expand_gates(const Slices& s, const C* z /* [gates] */, int64_t offset, int64_t length, C* out /* [length] */) {
  for_each_run(s, offset, length, [&](int64_t i, int64_t run, int64_t gate) {
    if (s.inner == 1) {
      std::copy(z + gate, z + gate + run, out + i);
    } else {
      std::fill(out + i, out + i + run, z[gate]);
    }
  });
}

// grad_gate[g] += the sum of x over the block's elements of slice g.
template <typename C>
void collect_gates(const Slices& s, const C* x, int64_t offset, int64_t length, double* grad_gate /* [gates] */) {
  for_each_run(s, offset, length, [&](int64_t i, int64_t run, int64_t gate) {
    if (s.inner == 1) {
      add_range(x + i, run, grad_gate + gate);
    } else {
      grad_gate[gate] += sum_range(x + i, run);
    }
  });
}

// v = weight z.
template <typename T>
void multiply_slices(const T* weight, const Arithmetic<T>* z /* [gates] */, const Slices& s, T* v) {
  using C = Arithmetic<T>;
  const SliceTasks tasks(s);
  for_each_part(tasks.count(), [&](int64_t task) {
    C gate[kBlock], loaded[kBlock], result[kBlock];
    for_each_slice_block(s, tasks, task, [&](int64_t i, int64_t length) {
      expand_gates(s, z, i, length, gate);
      C* out = target_block(v + i, result);
      product_range(load_block(weight + i, length, loaded), gate, length, out);
      store_block(out, length, v + i);
    });
  });
}

// grad_weight = grad_v z; returns grad_gate [gates] = the sum of grad_v weight over each slice.
template <typename T>
std::vector<double> slice_gradients(const T* grad_v, const T* weight, const Arithmetic<T>* z, const Slices& s,
                                    T* grad_weight) {
  using C = Arithmetic<T>;
  const SliceTasks tasks(s);
  // Tasks over rows share all gates: a copy each, added in order. Tasks over gates have their own.
  const int64_t copies = tasks.over_rows() ? std::max<int64_t>(tasks.count(), 1) : 1;
  std::vector<double> sums(copies * s.gates);
  for_each_part(tasks.count(), [&](int64_t task) {
    double* sum = sums.data() + (tasks.over_rows() ? task * s.gates : 0);
    C gate[kBlock], loaded_grad[kBlock], loaded[kBlock], result[kBlock], terms[kBlock];
    for_each_slice_block(s, tasks, task, [&](int64_t i, int64_t length) {
      expand_gates(s, z, i, length, gate);
      C* out = target_block(grad_weight + i, result);
      unit_slopes_range(load_block(grad_v + i, length, loaded_grad), load_block(weight + i, length, loaded), gate,
                        length, out, terms);
      store_block(out, length, grad_weight + i);
      collect_gates(s, terms, i, length, sum);
    });
  });
  for (int64_t copy = 1; copy < copies; ++copy)
    for (int64_t g = 0; g < s.gates; ++g) sums[g] += sums[copy * s.gates + g];
  return {sums.begin(), sums.begin() + s.gates};
}

}  // namespace l0fast::cpu
