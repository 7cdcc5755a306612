// Runs a grid: its blocks one after another, the threads of a block as fibers, both in shuffled order.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "device_functions.h"
#include "fibers.h"
#include "host_api.h"

namespace emulator {

struct Device {
  int multiprocessors;  // L0FAST_EMULATED_SMS
  int most_shared;      // L0FAST_EMULATED_SHARED: bytes a kernel may ask for; up to 48 KB of them without asking

  int default_shared() const { return most_shared < 48 * 1024 ? most_shared : 48 * 1024; }
};
const Device& device();

enum class State { ready, waiting, exited };

struct Thread {
  Fiber fiber;
  State state;
  // Of the collective that it waits in, or last waited in.
  Collective kind;
  uint32_t mask;
  uint64_t value, result;
  int source_lane;
};

// A warp's collectives.
struct Warp {
  uint32_t waiting = 0;  // lanes
  uint32_t barriers = 0;
};

// What orders the memory accesses of a block's threads: see races.h. Two of a kind, since a thread may leave one
// barrier after others have come to the next.
struct Tokens {
  uint64_t start, barrier[2], warp_barrier[32][2], fence;
};

// The block that runs now. There is one: launches exclude each other.
struct Block {
  const Launch* launch = nullptr;
  uint64_t launch_number = 0;
  std::deque<Thread> sets[races::kSets];  // as many as the largest block so far had
  int set = 0;
  int size = 0;  // how many of them are this block's
  int exited = 0, at_barrier = 0;
  std::vector<Warp> warps;
  std::vector<int> round, next_round;  // threads that go on now, and those that can afterwards
  int current = 0;
  uint32_t barriers = 0;
  std::unique_ptr<Tokens> tokens;  // new ones for every block: nothing orders two blocks
  uint64_t launch_token;

  Thread& thread(int t) { return sets[set][t]; }
};
extern Block block;

void run_grid(const Launch& launch);
// Ends the process; says which launch and block, and what each thread does.
[[noreturn]] void fail(const std::string& what);
// The demangled name of a function of this library, from its symbol table: kernels are local symbols.
std::string function_name(const void* function);

// Dynamic shared memory: a launch's requested bytes, NaN again for every block; writes behind them are found.
void open_shared(size_t bytes);
void renew_shared(size_t bytes);
void check_shared(size_t bytes, bool to_the_end);

}  // namespace emulator
