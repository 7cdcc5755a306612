// Many tensors in one launch: which block takes which elements of which tensor. Host code and index arithmetic alone.
// The table is a kernel parameter by value, which a graph capture keeps; a copy from host memory it would not.
#pragma once

#include <algorithm>
#include <vector>

#include "math/elementary.h"

namespace l0fast::cuda {

// Kernel parameters have room for 4096 bytes: 40 a tensor.
constexpr int kListTensors = 96;

template <typename T>
struct ListTable {
  const T* in[kListTensors];
  T* out[kListTensors];               // nullptr: there is none
  T number[kListTensors];             // one for each tensor
  int64_t count[kListTensors];        // elements
  int32_t first_block[kListTensors];  // of the launch
  int32_t tensors, blocks;
  int64_t chunk;  // elements of a block

  // The tensor of a block: the last one whose first block is not behind it.
  L0FAST_HD int tensor(int32_t block) const {
    int low = 0, high = tensors;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first_block[middle] <= block ? low : high) = middle;
    }
    return low;
  }
};

// One launch for each kListTensors tensors that are not empty. The chunk depends on the sizes alone.
template <typename T>
class ListPlan {
 public:
  ListPlan(const std::vector<int64_t>& counts, int64_t step) {
    int64_t total = 0;
    for (const int64_t count : counts) total += count;
    const int64_t share = (total + kMostBlocks - 1) / kMostBlocks;
    chunk_ = std::max<int64_t>(1, (share + step - 1) / step) * step;
  }

  void add(const T* in, T* out, T number, int64_t count) {
    if (count == 0) return;
    if (tables_.empty() || tables_.back().tensors == kListTensors) {
      tables_.emplace_back();
      tables_.back().chunk = chunk_;
    }
    ListTable<T>& t = tables_.back();
    t.in[t.tensors] = in, t.out[t.tensors] = out, t.number[t.tensors] = number, t.count[t.tensors] = count;
    t.first_block[t.tensors++] = t.blocks;
    const int64_t blocks = (count + chunk_ - 1) / chunk_;
    t.blocks += static_cast<int32_t>(blocks);
    blocks_ += blocks;
  }

  const std::vector<ListTable<T>>& tables() const { return tables_; }
  int64_t blocks() const { return blocks_; }  // of all launches

 private:
  static constexpr int64_t kMostBlocks = 2048;  // and one for each tensor
  int64_t chunk_, blocks_ = 0;
  std::vector<ListTable<T>> tables_;
};

}  // namespace l0fast::cuda
