// Work on streams: run at once, or recorded while the stream is being captured.
#pragma once

#include "host_api.h"

namespace emulator {

using Work = std::function<void()>;

cudaError_t enqueue(cudaStream_t stream, Work work);
// Remembers an error for cudaGetLastError, and returns it.
cudaError_t failed(cudaError_t error);
uint64_t random_below(uint64_t bound);

}  // namespace emulator
