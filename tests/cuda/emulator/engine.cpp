#include "engine.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

Block block;

namespace {

std::mutex one_launch;

std::mt19937_64& generator() {
  static std::mt19937_64 g = [] {
    const char* seed = getenv("L0FAST_EMULATED_SEED");
    return std::mt19937_64(seed ? strtoull(seed, nullptr, 10) : 0);
  }();
  return g;
}

// std::shuffle draws more numbers than an order for a few hundred threads needs.
template <typename T>
void shuffle_order(std::vector<T>& order) {
  uint64_t state = generator()();
  for (size_t i = order.size(); i > 1; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[i - 1], order[static_cast<size_t>(((state >> 32) * i) >> 32)]);
  }
}

void run_thread() {
  races::acquire(&block.tokens->start);
  block.launch->thread();
  Thread& self = block.thread(block.current);
  self.state = State::exited;
  ++block.exited;
  races::release(&block.launch_token);
  self.fiber.leave_for_good();
}

void resume(int t) {
  const unsigned i = static_cast<unsigned>(t), nx = blockDim.x, ny = blockDim.y;
  threadIdx = {i % nx, i / nx % ny, i / nx / ny};
  block.current = t;
  block.thread(t).fiber.resume();
}

void run_block(const Launch& launch, uint64_t index) {
  const uint64_t nx = gridDim.x, ny = gridDim.y;
  blockIdx = {unsigned(index % nx), unsigned(index / nx % ny), unsigned(index / nx / ny)};
  block.exited = block.at_barrier = 0;
  for (Warp& warp : block.warps) warp.waiting = 0;
  block.tokens = std::make_unique<Tokens>();
  renew_shared(launch.shared);
  races::release(&block.tokens->start);
  block.set = (block.set + 1) % races::kSets;
  auto& threads = block.sets[block.set];
  while (threads.size() < static_cast<size_t>(block.size)) threads.emplace_back();
  for (int t = 0; t < block.size; ++t) {
    block.thread(t).state = State::ready;
    block.thread(t).fiber.prepare(run_thread);
  }
  block.next_round.resize(block.size);
  std::iota(block.next_round.begin(), block.next_round.end(), 0);
  while (!block.next_round.empty()) {
    block.round.swap(block.next_round);
    block.next_round.clear();
    shuffle_order(block.round);
    for (const int t : block.round) resume(t);
  }
  if (block.exited != block.size) fail("deadlock: no thread can go on");
  check_shared(launch.shared, false);
}

}  // namespace

uint64_t random_below(uint64_t bound) {
  return generator()() % bound;
}

void run_grid(const Launch& launch) {
  const std::lock_guard<std::mutex> lock(one_launch);
  gridDim = launch.blocks;
  blockDim = launch.threads;
  block.launch = &launch;
  ++block.launch_number;
  block.size = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  block.set = 0;
  block.warps.resize((block.size + 31) / 32);
  // No allocation inside a device thread: ThreadSanitizer would see it.
  block.round.reserve(block.size);
  block.next_round.reserve(block.size);
  std::vector<uint64_t> order(uint64_t{gridDim.x} * gridDim.y * gridDim.z);
  std::iota(order.begin(), order.end(), 0);
  shuffle_order(order);
  open_shared(launch.shared);
  for (const uint64_t index : order) run_block(launch, index);
  races::acquire(&block.launch_token);
  check_shared(launch.shared, true);
}

}  // namespace emulator
