#include "fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "the emulator switches stacks in x86-64 assembly"
#endif

// Pushes what a callee must preserve, stores the stack pointer in *save, goes on where the other stack left off.
// (swapcontext would cost a system call per switch.)
extern "C" __attribute__((visibility("hidden"))) void l0fast_emulator_switch(void** save, void* load);
asm(R"(
.text
.hidden l0fast_emulator_switch
.globl l0fast_emulator_switch
.type l0fast_emulator_switch, @function
l0fast_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size l0fast_emulator_switch, .-l0fast_emulator_switch
)");

namespace emulator {
namespace {

constexpr size_t kGuard = 4096, kStack = 256 * 1024;

// One launch runs at a time.
void* scheduler = nullptr;
races::Context scheduler_context = nullptr;
Fiber* running = nullptr;
#if defined(__SANITIZE_ADDRESS__)
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;
#endif

}  // namespace

Fiber::Fiber() {
  void* const mapped = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapped, kGuard, PROT_NONE);
  stack_ = static_cast<char*>(mapped) + kGuard;
  races_context_ = races::new_context();
}

Fiber::~Fiber() {
  races::end_context(races_context_);
  munmap(stack_ - kGuard, kGuard + kStack);
}

void Fiber::prepare(void (*run)()) {
  run_ = run;
  // Six registers, enter() as the return address, and a return address of enter() that ends a debugger's walk.
  void** const top = reinterpret_cast<void**>(stack_ + kStack);
  for (int i = 1; i <= 8; ++i) top[-i] = nullptr;
  top[-2] = reinterpret_cast<void*>(&Fiber::enter);
  saved_ = top - 8;
  fake_stack_ = nullptr;
}

void Fiber::resume() {
  running = this;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, stack_, kStack);
#endif
  scheduler_context = races::own_context();
  races::switch_to(races_context_);
  l0fast_emulator_switch(&scheduler, saved_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

// Its frame never ends: without the attribute its red zones would stay on the stack for the next block.
__attribute__((no_sanitize("address"))) void Fiber::enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
  running->run_();
}

__attribute__((no_sanitize("address"))) void Fiber::switch_out(bool last) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack_, scheduler_stack, scheduler_stack_size);
#endif
  races::switch_to(scheduler_context);
  l0fast_emulator_switch(&saved_, scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack, &scheduler_stack_size);
#endif
}

void Fiber::suspend() {
  switch_out(false);
}

void Fiber::leave_for_good() {
  switch_out(true);
  __builtin_unreachable();
}

}  // namespace emulator
