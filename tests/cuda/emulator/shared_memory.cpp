#include <cstring>
#include <sstream>

#include "engine.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace l0fast::cuda {

// 227 KB, the most a kernel can ask for, and room for what is written behind it.
constexpr size_t kSharedSize = 256 * 1024;
alignas(1024) thread_local unsigned char l0fast_shared[kSharedSize];

}  // namespace l0fast::cuda

namespace emulator {
namespace {

using l0fast::cuda::kSharedSize;
using l0fast::cuda::l0fast_shared;

// 0xff bytes are a NaN in every floating type, and an index far out of range.
constexpr unsigned char kFresh = 0xff, kCanary = 0xc5;
constexpr size_t kNear = 4096;  // looked at after each block; the rest after the launch

}  // namespace

void open_shared(size_t bytes) {
  memset(l0fast_shared + bytes, kCanary, kSharedSize - bytes);
}

void renew_shared(size_t bytes) {
  memset(l0fast_shared, kFresh, bytes);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(l0fast_shared + bytes, kSharedSize - bytes);
#endif
}

void check_shared(size_t bytes, bool to_the_end) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(l0fast_shared, kSharedSize);
#endif
  const size_t end = to_the_end || bytes + kNear > kSharedSize ? kSharedSize : bytes + kNear;
  for (size_t i = bytes; i < end; ++i) {
    if (l0fast_shared[i] == kCanary) continue;
    std::ostringstream text;
    text << (to_the_end ? "a block" : "this block") << " wrote byte " << i << " of its dynamic shared memory of "
         << bytes << " bytes";
    fail(text.str());
  }
}

}  // namespace emulator
