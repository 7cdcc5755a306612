// How the passes over a matrix are laid out on a device: plain host code, so that it is tested without one.
#pragma once

#include <algorithm>
#include <cstdint>

#include "math/elementary.h"

namespace l0fast::cuda {

struct DeviceLimits {
  int64_t multiprocessors;
  int64_t shared_per_block;           // bytes, after opting in
  int64_t shared_per_multiprocessor;  // bytes
};

// One pass: warps take tiles of 32 records in turn.
struct PassPlan {
  int64_t blocks, threads;
  int64_t resident;  // targets 0 .. resident - 1 live in the block's shared memory, the others in global memory
  int64_t shared;    // bytes of dynamic shared memory
};

struct CalibrationPlan {
  int64_t lanes;  // lanes that share a column: 8, 16 or 32
  PassPlan scatter, gather;
};

constexpr int64_t kTile = 32;              // records of a warp's tile: one a lane
constexpr int64_t kMostWarps = 32;         // of a block
constexpr int64_t kLongColumn = 2048;      // longer columns are cut into chunks of this many nonzeros
constexpr int64_t kScatterBytes = 10;      // of a resident target: the sum in two words, and its exponent
constexpr int64_t kReservedShared = 1024;  // of a block: static arrays, and what the driver keeps

L0FAST_HD int64_t divided_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

L0FAST_HD int64_t tiles_of(int64_t n_records) {
  return divided_up(n_records, kTile);
}

// Chunks of a column; 0 for one that a tile handles.
L0FAST_HD int64_t long_chunks(int64_t length) {
  return length > kLongColumn ? divided_up(length, kLongColumn) : 0;
}

// The end of a chunk that begins there, in a column that ends at `end`.
L0FAST_HD int64_t chunk_end(int64_t begin, int64_t end) {
  return begin + kLongColumn < end ? begin + kLongColumn : end;
}

// A pass whose block holds `bytes` for each resident target. Private targets are worth it only if a block has several
// nonzeros for each: they must be cleared and flushed.
inline PassPlan plan_pass(int64_t n_targets, int64_t n_records, int64_t nnz, int64_t bytes,
                          const DeviceLimits& device) {
  const int64_t capacity = std::max<int64_t>(device.shared_per_block - kReservedShared, 0);
  PassPlan plan{};
  plan.resident = nnz >= 2 * n_targets * device.multiprocessors ? std::min(n_targets, capacity / bytes) : 0;
  plan.shared = divided_up(plan.resident * bytes, 16) * 16;
  const int64_t warps = std::max<int64_t>(tiles_of(n_records), divided_up(nnz, kLongColumn));
  const int64_t per_multiprocessor = std::max<int64_t>(divided_up(warps, device.multiprocessors), 1);
  plan.threads = std::clamp<int64_t>(per_multiprocessor, 4, kMostWarps) * kTile;
  const bool two = 2 * (plan.shared + kReservedShared) <= device.shared_per_multiprocessor;
  const int64_t most = (two ? 2 : 1) * device.multiprocessors;
  plan.blocks = std::clamp<int64_t>(divided_up(warps, plan.threads / kTile), 1, most);
  return plan;
}

inline CalibrationPlan plan_calibration(int64_t n_targets, int64_t n_records, int64_t nnz, int64_t value_bytes,
                                        const DeviceLimits& device) {
  const int64_t mean = n_records > 0 ? nnz / n_records : 0;
  return {mean > 48   ? 32
          : mean > 16 ? 16
                      : 8,
          plan_pass(n_targets, n_records, nnz, kScatterBytes, device),
          plan_pass(n_targets, n_records, nnz, value_bytes, device)};
}

inline int64_t pass_warps(const PassPlan& plan) {
  return plan.blocks * plan.threads / kTile;
}

}  // namespace l0fast::cuda
