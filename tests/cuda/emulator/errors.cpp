// The last error of each thread, and what the errors are called.
#include <pthread.h>

#include <map>
#include <mutex>

#include "streams.h"

namespace emulator {
namespace {

cudaError_t& last_error() {
  // Not thread_local: shared_memory.cpp fills this library's thread-local storage.
  static std::mutex mutex;
  static std::map<pthread_t, cudaError_t> errors;
  const std::lock_guard<std::mutex> lock(mutex);
  return errors.emplace(pthread_self(), cudaSuccess).first->second;
}

}  // namespace

cudaError_t failed(cudaError_t error) {
  if (error != cudaSuccess) last_error() = error;
  return error;
}

}  // namespace emulator

cudaError_t cudaPeekAtLastError() {
  return emulator::last_error();
}

cudaError_t cudaGetLastError() {
  return std::exchange(emulator::last_error(), cudaSuccess);
}

#define L0FAST_ERRORS(X)                                                                                            \
  X(cudaSuccess, "no error")                                                                                        \
  X(cudaErrorInvalidValue, "invalid argument")                                                                      \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                                \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                                               \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                      \
  X(cudaErrorIllegalState, "the operation cannot be performed in the present state")                                \
  X(cudaErrorNotSupported, "operation not supported")                                                               \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                          \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")                   \
  X(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences")                 \
  X(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began")                        \
  X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                                           \
  X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")                     \
  X(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream") \
  X(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream")              \
  X(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread")

const char* cudaGetErrorName(cudaError_t error) {
#define L0FAST_NAME(code, text) \
  if (error == code) return #code;
  L0FAST_ERRORS(L0FAST_NAME)
#undef L0FAST_NAME
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
#define L0FAST_TEXT(code, text) \
  if (error == code) return text;
  L0FAST_ERRORS(L0FAST_TEXT)
#undef L0FAST_TEXT
  return "unrecognized error code";
}
