#include "host/fingerprint.h"

#include <cstring>
#include <vector>

#include "host/parallel.h"

namespace l0fast::host {
namespace {

constexpr int64_t kLanes = 4;                               // independent chains hide the latency of the product
constexpr int64_t kStripe = kLanes * 2 * sizeof(uint64_t);  // every lane takes two words at a time
constexpr int64_t kChunk = int64_t{1} << 18;
// Odd words with about as many ones as zeros: fractional digits of the square roots of 2, 3, 5, 7 and 11.
constexpr uint64_t kKey[kLanes + 1] = {0x6a09e667f3bcc909, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                                       0x510e527fade682d1};

// Both halves of the 128-bit product: every bit of a and b reaches every bit of the result.
uint64_t fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t rotate(uint64_t x, int by) {
  return x << by | x >> (64 - by);
}

// The lane is carried past the product too: a factor that happens to be zero must not wipe out what came before.
void absorb(uint64_t* lanes, const char* stripe) {
  for (int64_t i = 0; i < kLanes; ++i) {
    uint64_t word[2];
    std::memcpy(word, stripe + i * sizeof word, sizeof word);
    lanes[i] = rotate(lanes[i], 23) + fold(lanes[i] ^ word[0], kKey[i] ^ word[1]);
  }
}

Fingerprint hash_chunk(const char* data, int64_t bytes) {
  uint64_t lanes[kLanes];
  std::memcpy(lanes, kKey + 1, sizeof lanes);  // not the lane's own key: its two words could be swapped unnoticed
  int64_t done = 0;
  for (; done + kStripe <= bytes; done += kStripe) absorb(lanes, data + done);
  if (done < bytes) {
    char rest[kStripe] = {};
    std::memcpy(rest, data + done, bytes - done);
    absorb(lanes, rest);
  }
  uint64_t a = static_cast<uint64_t>(bytes), b = kKey[kLanes];  // the length tells padding from data
  for (const uint64_t lane : lanes) {
    a = fold(a ^ lane, kKey[kLanes]) + lane;
    b = fold(b ^ rotate(lane, 32), kKey[0]) + lane;
  }
  return {fold(a ^ kKey[1], kKey[2]), fold(b ^ kKey[3], kKey[4])};
}

}  // namespace

Fingerprint fingerprint(const void* data, int64_t bytes, int64_t threads) {
  const char* start = static_cast<const char*>(data);
  const int64_t chunks = (bytes + kChunk - 1) / kChunk;
  std::vector<Fingerprint> hashes(chunks + 1);
  hashes[chunks] = {static_cast<uint64_t>(bytes), 0};
  threads = std::min(useful_threads(threads, bytes / 8), std::max<int64_t>(chunks, 1));
  run_parallel(threads, [&](int64_t t) {
    for (int64_t i = share(chunks, t, threads); i < share(chunks, t + 1, threads); ++i)
      hashes[i] = hash_chunk(start + i * kChunk, std::min(kChunk, bytes - i * kChunk));
  });
  return hash_chunk(reinterpret_cast<const char*>(hashes.data()), hashes.size() * sizeof(Fingerprint));
}

}  // namespace l0fast::host
