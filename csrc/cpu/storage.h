// Blocks of the 16-bit types go through buffers of floats; huge pages beneath large outputs.
#pragma once

#include <cstdint>

#include "math/storage.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace l0fast::cpu {

// out[i] = x[i], rounded to nearest even where it narrows.
#define L0FAST_DECLARE_CONVERSIONS(Small)                      \
  void widen_range(const Small* x, int64_t count, float* out); \
  void narrow_range(const float* x, int64_t count, Small* out);

L0FAST_DECLARE_CONVERSIONS(Half)
L0FAST_DECLARE_CONVERSIONS(BFloat16)
#undef L0FAST_DECLARE_CONVERSIONS

// A block of x in the arithmetic type: x itself, or its copy in the buffer.
template <typename T>
const Arithmetic<T>* load_block(const T* x, int64_t count, Arithmetic<T>* buffer) {
  if constexpr (std::is_same_v<T, Arithmetic<T>>) {
    return x;
  } else {
    widen_range(x, count, buffer);
    return buffer;
  }
}

// Where a block's results go: the output itself, or a buffer that store_block then writes from.
template <typename T>
Arithmetic<T>* target_block(T* out, Arithmetic<T>* buffer) {
  if constexpr (std::is_same_v<T, Arithmetic<T>>) {
    return out;
  } else {
    return buffer;
  }
}

template <typename T>
void store_block(const Arithmetic<T>* results, int64_t count, T* out) {
  if constexpr (!std::is_same_v<T, Arithmetic<T>>) narrow_range(results, count, out);
}

// Asks for huge pages beneath a large output before it is first written: a fault per 2 MB rather than one per 4 KB,
// which on a fresh buffer costs more than the arithmetic. Advice only: where it is refused nothing changes.
inline void advise_huge_pages(void* begin, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  if (bytes < static_cast<int64_t>(2 * kHuge)) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + kHuge - 1) / kHuge * kHuge;
  const uintptr_t last = (address + static_cast<uintptr_t>(bytes)) / kHuge * kHuge;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace l0fast::cpu
