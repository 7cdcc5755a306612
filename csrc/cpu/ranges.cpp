#include "cpu/ranges.h"

#include "cpu/clones.h"
#include "cpu/lanes.h"

namespace l0fast::cpu {
namespace {

// Philox blocks done at once: the rounds outside, one lane a block inside, so that each round is a loop of vector code.
constexpr int64_t kLanes = 64;

struct PhiloxLanes {
  uint32_t word[4][kLanes];
};

// The words of kLanes consecutive blocks: philox4x32_10 of each.
L0FAST_HD void philox_lanes(PhiloxKey key, uint32_t stream, uint64_t first_block, PhiloxLanes& lanes) {
  auto& word = lanes.word;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const PhiloxCounter c = philox_counter(stream, first_block + static_cast<uint64_t>(lane));
    word[0][lane] = c.word0, word[1][lane] = c.word1, word[2][lane] = c.word2, word[3][lane] = c.word3;
  }
  for (int round = 0; round < 10; ++round, key = next_key(key)) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const PhiloxCounter c = philox_round({word[0][lane], word[1][lane], word[2][lane], word[3][lane]}, key);
      word[0][lane] = c.word0, word[1][lane] = c.word1, word[2][lane] = c.word2, word[3][lane] = c.word3;
    }
  }
}

// uniform_at(seed, stream, index .. index + count - 1) -> u, which has room for count + 4 * kLanes + 3.
// Returns where the range begins in u: index may lie inside a Philox block.
template <typename T>
L0FAST_HD const T* fill_uniform(PhiloxKey key, uint32_t stream, int64_t index, int64_t count, T* __restrict u) {
  const int64_t skipped = index % 4;
  const int64_t blocks = (skipped + count + 3) / 4;
  PhiloxLanes lanes;
  for (int64_t b = 0; b < blocks; b += kLanes) {
    philox_lanes(key, stream, static_cast<uint64_t>(index / 4 + b), lanes);
    for (int64_t lane = 0; lane < kLanes; ++lane)
      for (int64_t k = 0; k < 4; ++k) u[4 * (b + lane) + k] = uniform_from_word<T>(lanes.word[k][lane]);
  }
  return u + skipped;
}

template <typename T>
L0FAST_HD void gates_loop(const T* log_alpha, int64_t count, int64_t index, Noise noise, const GateParams<T>& params,
                          T* __restrict gate) {
  const GateParams<T> p = params;
  if (noise.seed == nullptr) {
    for (int64_t i = 0; i < count; ++i) gate[i] = deterministic_gate(log_alpha[i], p);
    return;
  }
  T buffer[kBlock + 4 * kLanes + 4];
  const T* u = fill_uniform(philox_key(*noise.seed), noise.stream, index, count, buffer);
  for (int64_t i = 0; i < count; ++i) gate[i] = sampled_gate(log_alpha[i], u[i], p);
}

template <Link kLink, typename T>
L0FAST_HD void weights_loop(const T* log_weight, const T* gate, int64_t count, T* __restrict weight) {
  for (int64_t i = 0; i < count; ++i) weight[i] = linked<kLink>(log_weight[i]);
  if (gate == nullptr) return;
  for (int64_t i = 0; i < count; ++i) weight[i] *= gate[i];
}

template <typename T>
L0FAST_HD double sum_of_squares(const T* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

template <typename T>
L0FAST_HD double penalty_loop(const T* log_alpha, int64_t count, const GateParams<T>& params) {
  const GateParams<T> p = params;
  T probability[kBlock];
  for (int64_t i = 0; i < count; ++i) probability[i] = active_probability(log_alpha[i], p);
  return lane_sum(probability, count);
}

template <typename T>
L0FAST_HD void adam_loop(T* __restrict parameter, T* __restrict first, T* __restrict second,
                         const T* __restrict gradient, int64_t count, const AdamParams<T>& params) {
  const AdamParams<T> p = params;
  for (int64_t i = 0; i < count; ++i) parameter[i] = adam_step(parameter[i], gradient[i], first[i], second[i], p);
}

template <typename T>
L0FAST_HD void restrict_loops(T* __restrict parameter, const T* __restrict second, const T* __restrict low,
                              const T* __restrict high, int64_t count, const StepParams<T>& params) {
  const StepParams<T> p = params;
  if (p.shrinkage != T(0))
    for (int64_t i = 0; i < count; ++i) parameter[i] = shrunk(parameter[i], second[i], p.shrinkage, p.adam);
  if (low != nullptr)
    for (int64_t i = 0; i < count; ++i) parameter[i] = at_least(parameter[i], low[i]);
  if (high != nullptr)
    for (int64_t i = 0; i < count; ++i) parameter[i] = at_most(parameter[i], high[i]);
}

// Short loops without a branch over restricted pointers: each is vectorised whole. Their temporaries stay in the cache.
template <Link kLink, typename T>
L0FAST_HD StepSums step_loop(const StepArrays<T>& a, int64_t count, const StepParams<T>& params) {
  const StepParams<T> p = params;
  const T* __restrict gate = a.gate;
  const T* __restrict matrix_gradient = a.matrix_gradient;
  T weight[kBlock], ratio[kBlock], inverse_anchor[kBlock], gradient[kBlock], probability[kBlock];
  for (int64_t i = 0; i < count; ++i) weight[i] = linked<kLink>(a.log_weight[i]);
  for (int64_t i = 0; i < count; ++i) ratio[i] = weight[i];
  if (a.anchor != nullptr)
    for (int64_t i = 0; i < count; ++i) ratio[i] /= a.anchor[i];
  const T* ratio_slope = ratio;  // d ratio / d log_weight
  if constexpr (kLink == Link::kIdentity) {
    for (int64_t i = 0; i < count; ++i) inverse_anchor[i] = a.anchor == nullptr ? T(1) : T(1) / a.anchor[i];
    ratio_slope = inverse_anchor;
  }
  for (int64_t i = 0; i < count; ++i)
    gradient[i] = weight_gradient<kLink>(matrix_gradient[i], weight[i], gate[i], ratio[i], ratio_slope[i], p);
  adam_loop(a.log_weight, a.weight_first, a.weight_second, gradient, count, p.adam);
  restrict_loops(a.log_weight, a.weight_second, a.low, a.high, count, p);

  const T inverse = p.gates ? p.gate.inverse_temperature : T(0);  // 0: without gates nothing pulls at log_alpha
  const T* __restrict log_alpha = a.log_alpha;
  for (int64_t i = 0; i < count; ++i) probability[i] = active_probability(log_alpha[i], p.gate);
  for (int64_t i = 0; i < count; ++i)
    gradient[i] = alpha_gradient(matrix_gradient[i], weight[i], gate[i], log_alpha[i], probability[i], inverse, p);
  adam_loop(a.log_alpha, a.alpha_first, a.alpha_second, gradient, count, p.adam);
  StepSums sums;
  sums.probability = lane_sum(probability, count);
  if (p.twice_lambda_l2 != T(0)) sums.squares = sum_of_squares(ratio, count);
  return sums;
}

}  // namespace

#define L0FAST_DEFINE_RANGES(T)                                                                                     \
  L0FAST_CLONES void gates_range(const T* log_alpha, int64_t count, int64_t index, Noise noise,                     \
                                 const GateParams<T>& p, T* gate) {                                                 \
    gates_loop(log_alpha, count, index, noise, p, gate);                                                            \
  }                                                                                                                 \
  L0FAST_CLONES void weights_range(const T* log_weight, const T* gate, int64_t count, Link link, T* weight) {       \
    if (link == Link::kExp) return weights_loop<Link::kExp>(log_weight, gate, count, weight);                       \
    weights_loop<Link::kIdentity>(log_weight, gate, count, weight);                                                 \
  }                                                                                                                 \
  L0FAST_CLONES double penalty_range(const T* log_alpha, int64_t count, const GateParams<T>& p) {                   \
    return penalty_loop(log_alpha, count, p);                                                                       \
  }                                                                                                                 \
  L0FAST_CLONES void penalty_slope_range(const T* log_alpha, T factor, int64_t count, const GateParams<T>& params,  \
                                         T* gradient) {                                                             \
    const GateParams<T> p = params;                                                                                 \
    for (int64_t i = 0; i < count; ++i)                                                                             \
      gradient[i] = factor * active_slope(active_probability(log_alpha[i], p), log_alpha[i], p);                    \
  }                                                                                                                 \
  L0FAST_CLONES void gate_slope_range(const T* grad_gate, const T* gate, const T* log_alpha, T inverse_temperature, \
                                      int64_t count, const GateParams<T>& params, T* gradient) {                    \
    const GateParams<T> p = params;                                                                                 \
    for (int64_t i = 0; i < count; ++i)                                                                             \
      gradient[i] = grad_gate[i] * gate_slope(gate[i], log_alpha[i], inverse_temperature, p);                       \
  }                                                                                                                 \
  L0FAST_CLONES StepSums step_range(const StepArrays<T>& arrays, int64_t count, const StepParams<T>& p) {           \
    if (p.link == Link::kExp) return step_loop<Link::kExp>(arrays, count, p);                                       \
    return step_loop<Link::kIdentity>(arrays, count, p);                                                            \
  }

L0FAST_DEFINE_RANGES(float)
L0FAST_DEFINE_RANGES(double)
#undef L0FAST_DEFINE_RANGES

int64_t instruction_set() {
#if L0FAST_HAS_CLONES
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return 4;
  if (__builtin_cpu_supports("x86-64-v3")) return 3;
#endif
  return 0;
}

}  // namespace l0fast::cpu
