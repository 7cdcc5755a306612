// For a build with ThreadSanitizer (the kernels with -fsanitize=thread, all with -DL0FAST_EMULATED_RACES): what orders
// the memory accesses of two device threads. Whatever these calls do not order, and is no atomic, is reported.
//
// Ordered: a launch before and after all its threads; arrivals at a barrier or __syncwarp before departures from it; a
// __threadfence before every later one. Not ordered: shuffles and votes, the blocks of a grid, atomics by themselves.
#pragma once

#include <cstddef>

#if defined(L0FAST_EMULATED_RACES)

#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>

namespace emulator::races {

// Contexts are costly, so that blocks take turns with so many sets of them: a pair of blocks on the same set is not
// looked at.
constexpr int kSets = 4;
using Context = void*;
inline Context own_context() {
  return __tsan_get_current_fiber();
}
inline Context new_context() {
  return __tsan_create_fiber(0);
}
inline void end_context(Context context) {
  __tsan_destroy_fiber(context);
}
inline void switch_to(Context context) {
  __tsan_switch_to_fiber(context, 1 /* __tsan_switch_to_fiber_no_sync */);
}
inline void release(void* token) {
  __tsan_release(token);
}
inline void acquire(void* token) {
  __tsan_acquire(token);
}
// Whole pages, which become zero: for memory that two device threads use only because the emulator reuses it.
inline void forget(void* pages, size_t bytes) {
  mmap(pages, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

}  // namespace emulator::races

#else

namespace emulator::races {

constexpr int kSets = 1;
using Context = void*;
inline Context own_context() {
  return nullptr;
}
inline Context new_context() {
  return nullptr;
}
inline void end_context(Context) {}
inline void switch_to(Context) {}
inline void release(void*) {}
inline void acquire(void*) {}
inline void forget(void*, size_t) {}

}  // namespace emulator::races

#endif
