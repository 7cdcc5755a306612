// What the CPU launchers of gated ops share.
#pragma once

#include "args/gate.h"
#include "cpu/columns.h"
#include "cpu/ranges.h"
#include "cpu/storage.h"

namespace l0fast::cpu {

// Calls fn(first, length) for every block of `count` records, on torch's threads. A thread takes several blocks at
// once: a block can be less work than handing it out.
template <typename F>
void for_each_block(int64_t count, const F& fn) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  const int64_t group = std::clamp<int64_t>(blocks / 64, 1, 16);
  for_each_part((blocks + group - 1) / group, [&](int64_t part) {
    const int64_t end = std::min(count, (part + 1) * group * kBlock);
    for (int64_t i = part * group * kBlock; i < end; i += kBlock) fn(i, std::min(kBlock, end - i));
  });
}

}  // namespace l0fast::cpu
