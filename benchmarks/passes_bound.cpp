// What the two passes over the matrix cost by themselves: the bare gather and the bare scatter, nothing else.
//
//   g++ -O3 -std=c++17 -march=native -ffp-contract=fast -pthread benchmarks/passes_bound.cpp -o /tmp/passes_bound
//   /tmp/passes_bound 2000; /tmp/passes_bound 32633
//
// The synthetic problem's shape, 337,704 columns of 60 random rows, on two threads. With 2,000 targets both vectors of
// totals stay in the first-level cache; with 32,633 they do not, and that, not the memory's bandwidth, is the bound.
// The variants are the ones tried for the engine: AVX-512 gathers, prefetched targets, totals in float.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

constexpr int64_t kColumns = 337704, kLength = 60;
constexpr int kParts = 2, kSamples = 11;

float gather(const uint16_t* rows, const float* values, const float* r) {
  float a = 0, b = 0, c = 0, d = 0;
  for (int64_t k = 0; k < kLength; k += 4) {
    a += values[k] * r[rows[k]];
    b += values[k + 1] * r[rows[k + 1]];
    c += values[k + 2] * r[rows[k + 2]];
    d += values[k + 3] * r[rows[k + 3]];
  }
  return (a + b) + (c + d);
}

template <typename Total>
void scatter(const uint16_t* rows, const float* values, float weight, Total* totals) {
  const Total w = weight;
  for (int64_t k = 0; k < kLength; ++k) totals[rows[k]] += w * static_cast<Total>(values[k]);
}

void scatter_prefetched(const uint16_t* rows, const float* values, float weight, double* totals) {
  const double w = weight;
  for (int64_t k = 0; k < kLength; ++k) {
    __builtin_prefetch(totals + rows[k + 24], 1);
    totals[rows[k]] += w * static_cast<double>(values[k]);
  }
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
float gather_avx512(const uint16_t* rows, const float* values, const float* r) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < kLength; k += 16) {
    const __mmask16 mask = kLength - k >= 16 ? 0xffff : (1u << (kLength - k)) - 1;
    const __m512i index = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, rows + k));
    const __m512 slopes = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, index, r, 4);
    sum = _mm512_fmadd_ps(slopes, _mm512_maskz_loadu_ps(mask, values + k), sum);
  }
  return _mm512_reduce_add_ps(sum);
}
#endif

template <typename F>
void report(const char* name, const F& column) {
  std::vector<double> seconds;
  for (int sample = 0; sample < kSamples; ++sample) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (int part = 0; part < kParts; ++part)
      threads.emplace_back([&, part] {
        for (int64_t i = kColumns * part / kParts; i < kColumns * (part + 1) / kParts; ++i) column(part, i);
      });
    for (auto& thread : threads) thread.join();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[kSamples / 2];
  std::printf("  %-28s %6.2f ms, best %6.2f, %.2f ns a nonzero and core, %.1f GB/s\n", name, median * 1e3,
              seconds[0] * 1e3, median * kParts / (kColumns * kLength) * 1e9, kColumns * kLength * 6 / median / 1e9);
}

int main(int argc, char** argv) {
  const int64_t n_targets = argc > 1 ? std::atoll(argv[1]) : 32633;
  if (n_targets < 1 || n_targets > 65536) return std::fprintf(stderr, "targets: expected 1 to 65536\n"), 2;
  std::mt19937 generator(1);
  std::vector<uint16_t> rows(kColumns * kLength + 64);
  std::vector<float> values(rows.size(), 1.5f), r(n_targets, 0.5f), gradient(kColumns);
  for (auto& row : rows) row = static_cast<uint16_t>(generator() % n_targets);
  for (int64_t i = 0; i < kColumns; ++i) std::sort(&rows[i * kLength], &rows[(i + 1) * kLength]);
  std::vector<std::vector<double>> totals(kParts, std::vector<double>(n_targets));
  std::vector<std::vector<float>> short_totals(kParts, std::vector<float>(n_targets));
  std::printf("%ld targets x %ld columns of %ld\n", static_cast<long>(n_targets), static_cast<long>(kColumns),
              static_cast<long>(kLength));
  const auto row = [&](int64_t i) { return &rows[i * kLength]; };
  const auto value = [&](int64_t i) { return &values[i * kLength]; };
  report("gather", [&](int, int64_t i) { gradient[i] = gather(row(i), value(i), r.data()); });
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  report("gather, AVX-512", [&](int, int64_t i) { gradient[i] = gather_avx512(row(i), value(i), r.data()); });
#endif
  report("scatter, double totals", [&](int p, int64_t i) { scatter(row(i), value(i), 1.0f, totals[p].data()); });
  report("scatter, prefetched", [&](int p, int64_t i) { scatter_prefetched(row(i), value(i), 1, totals[p].data()); });
  report("scatter, float totals", [&](int p, int64_t i) { scatter(row(i), value(i), 1.0f, short_totals[p].data()); });
}
