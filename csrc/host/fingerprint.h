// A fast hash of an array's bytes, to notice that a matrix changed. Not for security; sha256 is the name on paper.
#pragma once

#include <cstdint>

namespace l0fast::host {

struct Fingerprint {
  uint64_t low, high;
};

// The same on any number of threads: chunks of a fixed size are hashed apart, then the list of their hashes.
Fingerprint fingerprint(const void* data, int64_t bytes, int64_t threads);

}  // namespace l0fast::host
