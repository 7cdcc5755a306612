// Shared memory is this library's thread-local storage: the array below, and the __shared__ variables of the kernels.
#include <link.h>

#include <cstring>
#include <sstream>

#include "engine.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace l0fast::cuda {

// 227 KB, the most a kernel can ask for, and room for what is written behind it.
constexpr size_t kSharedSize = 256 * 1024;
alignas(4096) thread_local unsigned char l0fast_shared[kSharedSize];

}  // namespace l0fast::cuda

namespace emulator {
namespace {

using l0fast::cuda::kSharedSize;
using l0fast::cuda::l0fast_shared;

// 0xff bytes are a NaN in every floating type, and an index far out of range.
constexpr unsigned char kFresh = 0xff, kCanary = 0xc5;
constexpr size_t kNear = 4096;  // looked at after each block; the rest after the launch

// The thread-local storage of this library in this OS thread: the part before l0fast_shared, and the part behind it.
struct Storage {
  unsigned char *begin = nullptr, *end = nullptr;

  void renew() const {
    // On a device two blocks have memory of their own.
    races::forget(begin, static_cast<size_t>(end - begin));
    memset(begin, kFresh, l0fast_shared - begin);
    memset(l0fast_shared + kSharedSize, kFresh, end - (l0fast_shared + kSharedSize));
  }
} statics;

int find_statics(dl_phdr_info* library, size_t, void*) {
  auto* const begin = static_cast<unsigned char*>(library->dlpi_tls_data);
  if (!begin) return 0;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    if (library->dlpi_phdr[i].p_type != PT_TLS) continue;
    unsigned char* const end = begin + library->dlpi_phdr[i].p_memsz;
    if (begin > l0fast_shared || l0fast_shared >= end) continue;
    statics.begin = begin;
    statics.end = end;
    return 1;
  }
  return 0;
}

}  // namespace

void open_shared(size_t bytes) {
  if (!dl_iterate_phdr(find_statics, nullptr)) fail("the kernels' thread-local storage was not found");
  memset(l0fast_shared + bytes, kCanary, kSharedSize - bytes);
}

void renew_shared(size_t bytes) {
  statics.renew();
  memset(l0fast_shared, kFresh, bytes);
#if defined(L0FAST_EMULATED_RACES)
  memset(l0fast_shared + bytes, kCanary, kSharedSize - bytes);
#endif
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
