// What threads wait for together. A collective is complete when every thread of the block, or every lane of the mask,
// waits in it; then each gets its result.
#include <algorithm>

#include "engine.h"

namespace emulator {
namespace {

bool is_barrier(Collective kind) {
  return kind <= Collective::barrier_or;
}

void release(int t, uint64_t result) {
  Thread& thread = block.thread(t);
  thread.result = result;
  thread.state = State::ready;
  block.next_round.push_back(t);
}

void complete_barrier(Collective kind) {
  for (int t = 0; t < block.size; ++t)
    if (block.thread(t).kind != kind) return;  // nobody can come any more: the scheduler reports it
  uint64_t sum = 0;
  for (int t = 0; t < block.size; ++t) sum += block.thread(t).value;
  if (kind == Collective::barrier_and) sum = sum == static_cast<uint64_t>(block.size);
  if (kind == Collective::barrier_or) sum = sum != 0;
  block.at_barrier = 0;
  ++block.barriers;
  for (int t = 0; t < block.size; ++t) release(t, sum);
}

void complete_in_warp(int warp, Collective kind, uint32_t mask) {
  const int first = warp * 32;
  uint32_t votes = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const Thread& thread = block.thread(first + lane);
    if (thread.kind != kind || thread.mask != mask) return;  // waits for others, elsewhere
    votes |= static_cast<uint32_t>(thread.value != 0) << lane;
  }
  block.warps[warp].waiting &= ~mask;
  block.warps[warp].barriers += kind == Collective::warp_barrier;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const Thread& thread = block.thread(first + lane);
    uint64_t result = votes;
    if (kind == Collective::all) result = votes == mask;
    if (kind == Collective::any) result = votes != 0;
    if (kind == Collective::shuffle) result = block.thread(first + thread.source_lane).value;
    release(first + lane, result);
  }
}

void check_lanes(int warp, int lane, uint32_t mask, Collective kind, int source_lane) {
  const int lanes = std::min(32, block.size - warp * 32);
  if (!(mask >> lane & 1)) fail_in_thread("a warp collective's mask leaves out the lane that calls it");
  if (lanes < 32 && mask >> lanes) fail_in_thread("a warp collective's mask names lanes that the block does not have");
  if (kind == Collective::shuffle && !(mask >> source_lane & 1))
    fail_in_thread("a shuffle reads a lane that its mask leaves out");
}

// What this collective orders memory accesses with, if it does: a shuffle or a vote does not.
void* order_token(Collective kind, int warp) {
  if (is_barrier(kind)) return &block.tokens->barrier[block.barriers % 2];
  if (kind == Collective::warp_barrier) return &block.tokens->warp_barrier[warp][block.warps[warp].barriers % 2];
  return nullptr;
}

}  // namespace

void fence(bool of_block) {
  static uint64_t of_device;
  void* const token = of_block ? &block.tokens->fence : &of_device;
  races::acquire(token);
  races::release(token);
}

int current_lane() {
  return block.current % 32;
}

uint64_t collect(Collective kind, uint32_t mask, uint64_t value, int source_lane) {
  const int t = block.current, warp = t / 32, lane = t % 32;
  if (!is_barrier(kind)) check_lanes(warp, lane, mask, kind, source_lane);
  Thread& self = block.thread(t);
  self.state = State::waiting;
  self.kind = kind;
  self.mask = mask;
  self.value = value;
  self.source_lane = source_lane;
  void* const token = order_token(kind, warp);
  if (token) races::release(token);
  if (is_barrier(kind)) {
    if (++block.at_barrier == block.size) complete_barrier(kind);
  } else {
    block.warps[warp].waiting |= 1u << lane;
    if ((block.warps[warp].waiting & mask) == mask) complete_in_warp(warp, kind, mask);
  }
  self.fiber.suspend();
  if (token) races::acquire(token);
  return self.result;
}

}  // namespace emulator
