// A team of threads for one job. Plain std::thread: the arrays side of the library needs nothing of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace l0fast::host {

// Runs fn(0), ..., fn(threads - 1), each on a thread of its own. Of several exceptions the one of the lowest index is
// thrown: where thread t works on the t-th range, that is the first fault of the whole, on any number of threads.
template <typename F>
void run_parallel(int64_t threads, const F& fn) {
  std::vector<std::exception_ptr> errors(threads);
  const auto guarded = [&](int64_t t) noexcept {
    try {
      fn(t);
    } catch (...) {
      errors[t] = std::current_exception();
    }
  };
  std::vector<std::thread> team;
  team.reserve(threads);
  int64_t started = 1;
  try {
    for (; started < threads; ++started) team.emplace_back(guarded, started);
  } catch (const std::system_error&) {
    // The system gives no more threads: the caller does their share.
  }
  guarded(0);
  for (int64_t t = started; t < threads; ++t) guarded(t);
  for (std::thread& thread : team) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// Start of the t-th of `threads` equal shares of 0 .. count - 1.
inline int64_t share(int64_t count, int64_t t, int64_t threads) {
  return count / threads * t + count % threads * t / threads;
}

// Threads worth starting for `count` entries: a thread costs about as much as 64 thousand of them.
inline int64_t useful_threads(int64_t threads, int64_t count) {
  return std::clamp<int64_t>(threads, 1, 1 + count / 65536);
}

}  // namespace l0fast::host
