// With --param tsan-distinguish-volatile=1 GCC calls these for volatile accesses; libtsan lacks them. On a device they
// are what a relaxed atomic is: not torn, not kept in a register, in no order with anything else.
#include "races.h"

#if defined(L0FAST_EMULATED_RACES)

#include <cstdint>

// libtsan's; the header that declares them does not come with GCC. Order 0 is relaxed.
#define L0FAST_VOLATILE(bytes, bits)                                                                   \
  extern "C" uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t*, int);           \
  extern "C" void __tsan_atomic##bits##_store(volatile uint##bits##_t*, uint##bits##_t, int);          \
  extern "C" void __tsan_volatile_read##bytes(void* p) {                                               \
    __tsan_atomic##bits##_load(static_cast<uint##bits##_t*>(p), 0);                                    \
  }                                                                                                    \
  /* Called before the write: it stores what is there. */                                              \
  extern "C" void __tsan_volatile_write##bytes(void* p) {                                              \
    __tsan_atomic##bits##_store(static_cast<uint##bits##_t*>(p), *static_cast<uint##bits##_t*>(p), 0); \
  }

L0FAST_VOLATILE(1, 8)
L0FAST_VOLATILE(2, 16)
L0FAST_VOLATILE(4, 32)
L0FAST_VOLATILE(8, 64)
#undef L0FAST_VOLATILE

#endif
