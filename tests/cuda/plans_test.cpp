// The plans of csrc/cuda against brute force: every element is taken once, and its sum reaches its gate once.
// Prints the number of cases; on a failure says which and ends with 1.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cuda/slice_plan.h"
#include "cuda/tensor_list.h"

namespace {

using namespace l0fast;
using namespace l0fast::cuda;

int64_t cases = 0;

void require(bool good, const char* what, const Slices& s, int pack) {
  if (good) return;
  std::printf("%s: [%lld, %lld, %lld], packs of %d\n", what, static_cast<long long>(s.outer),
              static_cast<long long>(s.gates), static_cast<long long>(s.inner), pack);
  std::exit(1);
}

int64_t gate_of(const Slices& s, int64_t i) {
  return i / s.inner % s.gates;
}

// The partial sum in which each element ends, by walking as the kernels do. kW: the plan's pack.
template <int kW>
std::vector<int64_t> places(const SlicePlan& plan, const Slices& s) {
  std::vector<int64_t> place(s.count(), -1);
  const auto take = [&](int64_t i, int64_t where) {
    require(i < s.count() && place[i] < 0, "an element twice or beyond the end", s, kW);
    place[i] = where;
  };
  for (int64_t block = 0; block < plan.blocks(); ++block) {
    for (int thread = 0; thread < kSliceThreads; ++thread) {
      if (plan.over_columns) {
        const ColumnPlan& c = plan.columns;
        const Walk walk = c.walk<kW>(block, thread);
        const int64_t column = c.column<kW>(block, thread), chunk = c.tiles.quotient(block);
        require(walk.end <= s.count() && c.width % kW == 0, "an end beyond the array or a torn pack", s, kW);
        for (int64_t i = walk.begin; i < walk.end; i += walk.step)
          for (int64_t k = 0; k < kW && i + k < walk.end; ++k) take(i + k, chunk * c.width + column + k);
      } else {
        const Walk walk = plan.rows.walk<kW>(block, thread);
        const int64_t unit = plan.rows.unit(block, thread);
        for (int64_t i = walk.begin; i < walk.end; i += walk.step) {
          require(plan.rows.gate(unit) == gate_of(s, i), "a thread has another gate", s, kW);
          for (int64_t k = 0; k < kW; ++k) take(i + k, unit);
        }
      }
    }
  }
  return place;
}

// The gate that each partial sum is added to.
std::vector<int64_t> owners(const GatePlan& plan, const Slices& s, int pack) {
  std::vector<int64_t> owner(plan.partials.count(), -1);
  for (int64_t block = 0; block < plan.blocks(); ++block) {
    for (int thread = 0; thread < kSliceThreads; ++thread) {
      const Walk walk = plan.walk(block, thread);
      const int64_t gate = plan.gate(block, thread);
      for (int64_t q = walk.begin; q < walk.end; q += walk.step) {
        const int64_t place = plan.place(gate, q);
        require(place >= 0 && place < plan.partials.count() && owner[place] < 0, "a partial sum twice", s, pack);
        owner[place] = gate;
      }
    }
  }
  return owner;
}

void check(const SlicePlan& plan, const Slices& s) {
  const std::vector<int64_t> place = plan.pack == 1   ? places<1>(plan, s)
                                     : plan.pack == 4 ? places<4>(plan, s)
                                                      : places<8>(plan, s);
  const std::vector<int64_t> owner = owners(plan_gates(plan.partials()), s, plan.pack);
  for (int64_t i = 0; i < s.count(); ++i) {
    require(place[i] >= 0, "an element left out", s, plan.pack);
    require(place[i] < count_partials(plan) && owner[place[i]] == gate_of(s, i), "a sum for another gate", s,
            plan.pack);
  }
  for (const int64_t gate : owner) require(gate >= 0, "a partial sum left out", s, plan.pack);
  ++cases;
}

void check_all(const Slices& s) {
  for (const int pack : {1, 4, 8}) {
    for (const bool sums : {false, true}) {
      check(plan_columns(s, pack, sums), s);
      check(plan_slices(s, pack, sums), s);
    }
    check(plan_rows(s, pack), s);
  }
}

void check_slices(std::mt19937& random) {
  const Slices fixed[] = {{0, 4, 1},     {1, 4, 0},     {1, 0, 5},      {1, 1, 1},     {1, 7, 1},      {7, 1, 1},
                          {1, 2, 40000}, {40000, 2, 1}, {300, 129, 1},  {301, 129, 1}, {64, 64, 9},    {1, 24, 25},
                          {2, 3, 9000},  {70000, 1, 2}, {1, 1, 100000}, {3, 50000, 1}, {512, 33, 2},   {1000, 3, 1},
                          {129, 5, 3},   {16, 1030, 1}, {1, 3000, 1},   {5, 2, 8200},  {2049, 128, 1}, {1, 300, 255},
                          {1, 9, 2048},  {100, 4, 256}, {1, 5, 4097},   {6, 6, 6},     {33, 31, 32},   {1, 60000, 3}};
  for (const Slices& s : fixed) check_all(s);
  for (int n = 0; n < 150; ++n) {
    const auto size = [&](double most) {
      return static_cast<int64_t>(std::pow(most, std::uniform_real_distribution<double>(0, 1)(random)));
    };
    const int64_t outer = size(3000), gates = size(60000.0 / static_cast<double>(outer));
    check_all({outer, gates, size(60000.0 / static_cast<double>(outer * gates))});
  }
}

void check_divisors(std::mt19937& random) {
  std::mt19937_64 wide(random());
  for (int n = 0; n < 300000; ++n) {
    const int64_t b = 1 + static_cast<int64_t>(wide() >> (13 + wide() % 50));
    const int64_t q = static_cast<int64_t>(wide() >> (13 + wide() % 50)) / b;
    const Divisor divisor(b);
    for (const int64_t a : {q * b - 1, q * b, q * b + 1, q * b + b - 1, static_cast<int64_t>(wide() >> 13)}) {
      if (a < 0 || a >= int64_t{1} << 51) continue;
      if (divisor.quotient(a) == a / b && divisor.remainder(a) == a % b) continue;
      std::printf("%lld / %lld gave %lld\n", static_cast<long long>(a), static_cast<long long>(b),
                  static_cast<long long>(divisor.quotient(a)));
      std::exit(1);
    }
  }
  ++cases;
}

// Every element of every tensor of a list is taken by one block.
void check_list(const std::vector<int64_t>& counts) {
  std::vector<std::vector<float>> data;
  for (const int64_t count : counts) data.emplace_back(count);
  ListPlan<float> plan(counts, 4096);
  for (size_t k = 0; k < counts.size(); ++k) plan.add(data[k].data(), data[k].data(), static_cast<float>(k), counts[k]);
  int64_t blocks = 0;
  for (const ListTable<float>& t : plan.tables()) {
    blocks += t.blocks;
    for (int32_t block = 0; block < t.blocks; ++block) {
      const int tensor = t.tensor(block);
      const int64_t begin = (block - t.first_block[tensor]) * t.chunk, end = std::min(begin + t.chunk, t.count[tensor]);
      bool good = begin < end && t.in[tensor] == data[static_cast<size_t>(t.number[tensor])].data();
      for (int64_t i = begin; good && i < end; ++i) t.out[tensor][i] += 1;
      require(good, "a block without elements or with those of another tensor", {}, 4);
    }
  }
  require(blocks == plan.blocks(), "another number of blocks", {}, 4);
  for (const auto& tensor : data)
    for (const float taken : tensor) require(taken == 1, "an element not taken once", {}, 4);
  ++cases;
}

void check_lists(std::mt19937& random) {
  check_list({0});
  check_list({1});
  check_list({4096, 4097, 0, 1});
  check_list(std::vector<int64_t>(300, 7));
  check_list({20'000'000, 5, 9'000'001});
  for (int n = 0; n < 20; ++n) {
    std::vector<int64_t> counts(1 + random() % 250);
    for (int64_t& count : counts) count = random() % 3 == 0 ? 0 : random() % 10000;
    check_list(counts);
  }
}

}  // namespace

int main() {
  std::mt19937 random(7);
  check_divisors(random);
  check_slices(random);
  check_lists(random);
  std::printf("%lld cases\n", static_cast<long long>(cases));
}
