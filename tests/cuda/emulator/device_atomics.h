// Atomics, for the types that CUDA has them for. Relaxed, as there.
#pragma once

#include <type_traits>

#include "device_types.h"

namespace emulator {

void fence(bool of_block);

// *address = update(*address), returning what was there.
template <typename T, typename F>
T atomic_update(T* address, const F& update) {
  using Bits = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;
  static_assert(sizeof(T) == sizeof(Bits));
  Bits* const bits = reinterpret_cast<Bits*>(address);
  Bits seen = __atomic_load_n(bits, __ATOMIC_RELAXED), wanted;
  T before;
  do {
    memcpy(&before, &seen, sizeof(T));
    const T after = update(before);
    memcpy(&wanted, &after, sizeof(T));
  } while (!__atomic_compare_exchange_n(bits, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

}  // namespace emulator

#define L0FAST_ATOMIC(name, T, expression)                                                          \
  inline T name(T* address, T value) {                                                              \
    return emulator::atomic_update(address, [value](T old) { return static_cast<T>(expression); }); \
  }
#define L0FAST_ATOMIC_INTEGERS(name, expression) \
  L0FAST_ATOMIC(name, int, expression)           \
  L0FAST_ATOMIC(name, unsigned, expression)      \
  L0FAST_ATOMIC(name, unsigned long long, expression)

L0FAST_ATOMIC(atomicAdd, unsigned, old + value)
L0FAST_ATOMIC(atomicAdd, unsigned long long, old + value)
L0FAST_ATOMIC(atomicAdd, int, static_cast<unsigned>(old) + static_cast<unsigned>(value))
L0FAST_ATOMIC(atomicAdd, float, old + value)
L0FAST_ATOMIC(atomicAdd, double, old + value)
L0FAST_ATOMIC(atomicSub, unsigned, old - value)
L0FAST_ATOMIC(atomicSub, int, static_cast<unsigned>(old) - static_cast<unsigned>(value))
L0FAST_ATOMIC_INTEGERS(atomicMax, old < value ? value : old)
L0FAST_ATOMIC(atomicMax, long long, old < value ? value : old)
L0FAST_ATOMIC_INTEGERS(atomicMin, value < old ? value : old)
L0FAST_ATOMIC(atomicMin, long long, value < old ? value : old)
L0FAST_ATOMIC_INTEGERS(atomicAnd, old& value)
L0FAST_ATOMIC_INTEGERS(atomicOr, old | value)
L0FAST_ATOMIC_INTEGERS(atomicXor, old ^ value)
L0FAST_ATOMIC_INTEGERS(atomicExch, value)
L0FAST_ATOMIC(atomicExch, float, value)
L0FAST_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
L0FAST_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef L0FAST_ATOMIC_INTEGERS
#undef L0FAST_ATOMIC

#define L0FAST_ATOMIC_CAS(T)                                                                           \
  inline T atomicCAS(T* address, T expected, T value) {                                                \
    __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
    return expected;                                                                                   \
  }

L0FAST_ATOMIC_CAS(int)
L0FAST_ATOMIC_CAS(unsigned)
L0FAST_ATOMIC_CAS(unsigned long long)
#undef L0FAST_ATOMIC_CAS

inline void __threadfence() {
  emulator::fence(false);
}
inline void __threadfence_block() {
  emulator::fence(true);
}
