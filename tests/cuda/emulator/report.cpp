// The message with which an error in a kernel ends the process.
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "engine.h"

namespace emulator {
namespace {

template <typename V>
std::string triple(const V& v) {
  std::ostringstream text;
  text << "(" << v.x << ", " << v.y << ", " << v.z << ")";
  return text.str();
}

std::string describe(const Thread& thread) {
  if (thread.state == State::exited) return "exited";
  if (thread.state == State::ready) return "can run";
  static const char* const names[] = {"__syncthreads",    "__syncthreads_count", "__syncthreads_and",
                                      "__syncthreads_or", "__syncwarp",          "a shuffle",
                                      "__ballot_sync",    "__all_sync",          "__any_sync"};
  std::ostringstream text;
  text << "wait in " << names[static_cast<int>(thread.kind)];
  if (thread.kind > Collective::barrier_or) text << " with mask 0x" << std::hex << thread.mask;
  return text.str();
}

}  // namespace

void fail(const std::string& what) {
  std::ostringstream text;
  text << "l0fast emulator: " << what << "\n  kernel " << function_name(block.launch->kernel) << "\n  launch "
       << block.launch_number << ", grid " << triple(gridDim) << " of " << triple(blockDim) << " threads, "
       << block.launch->shared << " bytes of dynamic shared memory; block " << triple(blockIdx) << "\n";
  for (int t = 0, end; t < block.size; t = end) {
    const std::string doing = describe(block.thread(t));
    for (end = t + 1; end < block.size && describe(block.thread(end)) == doing;) ++end;
    text << "  threads " << t << " to " << end - 1 << ": " << doing << "\n";
  }
  fputs(text.str().c_str(), stderr);
  fflush(stderr);
  abort();
}

void fail_in_thread(const char* what) {
  std::ostringstream text;
  text << what << ", in thread " << block.current;
  fail(text.str());
}

}  // namespace emulator
