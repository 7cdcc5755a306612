// The layout of the passes over a matrix (csrc/cuda/calibration_plan.h) against brute force: the walk of scatter.cuh
// and gather.cuh takes every nonzero once, and no block asks for more than the device has. Prints the number of cases;
// on a failure says which and ends with 1.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cuda/calibration_plan.h"

namespace {

using namespace l0fast::cuda;

int64_t cases = 0;

void require(bool good, const char* what, int64_t m, int64_t n, int64_t nnz) {
  if (good) return;
  std::printf("%s: %lld targets, %lld records, %lld nonzeros\n", what, static_cast<long long>(m),
              static_cast<long long>(n), static_cast<long long>(nnz));
  std::exit(1);
}

const DeviceLimits kDevices[] = {
    {132, 227 << 10, 228 << 10}, {108, 163 << 10, 164 << 10}, {4, 99 << 10, 100 << 10}, {1, 48 << 10, 64 << 10}};

void check_limits(const PassPlan& p, const DeviceLimits& d, int64_t bytes, int64_t m, int64_t n, int64_t nnz) {
  require(p.blocks >= 1 && p.threads >= kTile && p.threads <= kMostWarps * kTile, "no such grid", m, n, nnz);
  require(p.threads % kTile == 0, "half a warp", m, n, nnz);
  require(p.resident >= 0 && p.resident <= m, "more resident targets than there are", m, n, nnz);
  require(p.shared >= p.resident * bytes && p.shared % 16 == 0, "too little shared memory", m, n, nnz);
  require(p.shared + kReservedShared <= d.shared_per_block || p.resident == 0, "too much shared memory", m, n, nnz);
}

// Lane by lane, as for_each_nonzero walks.
void take(std::vector<int>& taken, int64_t begin, int64_t end, int64_t lanes) {
  for (int64_t lane = 0; lane < lanes; ++lane)
    for (int64_t k = begin + lane; k < end; k += 4 * lanes)
      for (int64_t u = 0; u < 4; ++u)
        if (k + u * lanes < end) ++taken[k + u * lanes];
}

void walk(const PassPlan& p, int64_t lanes, const std::vector<int64_t>& indptr, int64_t m) {
  const int64_t n = static_cast<int64_t>(indptr.size()) - 1, nnz = indptr[n], warps = pass_warps(p);
  std::vector<int> taken(nnz), seen(n);
  std::vector<int64_t> chunk_column, chunk_begin;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < long_chunks(indptr[i + 1] - indptr[i]); ++c) {
      chunk_column.push_back(i);
      chunk_begin.push_back(indptr[i] + c * kLongColumn);
    }
  for (int64_t warp = 0; warp < warps; ++warp) {
    for (int64_t tile = warp; tile * kTile < n; tile += warps)
      for (int64_t i = tile * kTile; i < std::min(n, (tile + 1) * kTile); ++i) {
        ++seen[i];
        if (long_chunks(indptr[i + 1] - indptr[i]) == 0) take(taken, indptr[i], indptr[i + 1], lanes);
      }
    for (int64_t c = warp; c < static_cast<int64_t>(chunk_column.size()); c += warps)
      take(taken, chunk_begin[c], chunk_end(chunk_begin[c], indptr[chunk_column[c] + 1]), kTile);
  }
  for (const int count : taken) require(count == 1, "a nonzero not taken exactly once", m, n, nnz);
  for (const int count : seen) require(count == 1, "a record not stepped exactly once", m, n, nnz);
}

void check_problem(const std::vector<int64_t>& indptr, int64_t m) {
  const int64_t n = static_cast<int64_t>(indptr.size()) - 1, nnz = indptr[n];
  for (const DeviceLimits& device : kDevices) {
    const CalibrationPlan plan = plan_calibration(m, n, nnz, 4, device);
    check_limits(plan.scatter, device, kScatterBytes, m, n, nnz);
    check_limits(plan.gather, device, 4, m, n, nnz);
    walk(plan.scatter, plan.lanes, indptr, m);
    walk(plan.gather, plan.lanes, indptr, m);
    ++cases;
  }
}

// Sizes beyond memory: the same limits, and chunks that add up to the column.
void check_huge(int64_t m, int64_t n, int64_t nnz) {
  for (const DeviceLimits& device : kDevices) {
    const CalibrationPlan plan = plan_calibration(m, n, nnz, 8, device);
    check_limits(plan.scatter, device, kScatterBytes, m, n, nnz);
    check_limits(plan.gather, device, 8, m, n, nnz);
    require(tiles_of(n) * kTile >= n && (tiles_of(n) - 1) * kTile < n, "tiles", m, n, nnz);
    ++cases;
  }
  const int64_t chunks = long_chunks(nnz), last = (chunks - 1) * kLongColumn;
  require(last < nnz && chunk_end(last, nnz) == nnz, "the chunks of a giant column", m, n, nnz);
}

}  // namespace

int main() {
  std::mt19937 random(1);
  const auto up_to = [&](int64_t most) { return static_cast<int64_t>(random() % static_cast<uint64_t>(most + 1)); };
  for (int round = 0; round < 60; ++round) {
    const int64_t n = up_to(round % 3 == 0 ? 40 : 3000), m = round % 5 == 0 ? 1 : 1 + up_to(100000);
    const int64_t longest = std::min(m, up_to(200));
    std::vector<int64_t> indptr{0};
    for (int64_t i = 0; i < n; ++i) indptr.push_back(indptr.back() + (up_to(3) == 0 ? 0 : up_to(longest)));
    if (round % 4 == 0 && n > 0) {  // one giant column
      const int64_t giant = up_to(n - 1), length = 2047 + up_to(20000);
      for (int64_t i = giant + 1; i <= n; ++i) indptr[i] += length;
    }
    check_problem(indptr, m);
  }
  check_problem({0}, 5);
  check_problem({0, kLongColumn, 2 * kLongColumn + 1}, 1);
  check_huge(13000, 5200000, int64_t{5200000} * 80);
  check_huge(100000, 50000000, int64_t{4000000000});
  check_huge(1, int64_t{5000000000}, int64_t{5000000001});
  std::printf("%lld cases\n", static_cast<long long>(cases));
  return 0;
}
