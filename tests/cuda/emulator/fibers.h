// Threads of a block: stacks that one OS thread switches between.
#pragma once

#include <cstddef>

#include "races.h"

namespace emulator {

class Fiber {
 public:
  Fiber();  // maps a stack with a guard page below it
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls run(), which ends with a call of leave_for_good().
  void prepare(void (*run)());
  // From the scheduler: runs the fiber until it calls suspend() or leave_for_good().
  void resume();
  void suspend();
  [[noreturn]] void leave_for_good();

 private:
  static void enter();
  void switch_out(bool last);

  char* stack_;
  void* saved_ = nullptr;  // its stack pointer while it does not run
  void (*run_)() = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  races::Context races_context_;
};

}  // namespace emulator
