// The loop of the epochs, for calibration and regression alike (DESIGN 6).
//
// The matrix is read once an epoch, not twice: as soon as the backward pass has stepped the records of a block, their
// gates for the next epoch are drawn and their columns, still in the cache, are scattered into the next totals.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "args/calibration_epochs.h"
#include "cpu/columns.h"
#include "math/objective.h"

namespace l0fast::cpu {

struct AdamArgs {
  double lr, beta1, beta2, epsilon;
};

// One number added to every total, trained without gate, noise or penalty.
template <typename T>
struct Bias {
  T *value, *first, *second;  // [1] each, or nullptr: none

  double read() const { return value == nullptr ? 0.0 : static_cast<double>(*value); }
};

template <typename T>
struct State {
  T *log_weight, *log_alpha, *weight_first, *weight_second, *alpha_first, *alpha_second;  // [n_records]
  const T* anchor;                                                                        // [n_records] or nullptr
  const int64_t* seed;
  int64_t first_index;
  double lambda_l0, lambda_l2;
  Link link;
  bool gates;
  Bias<T> bias;
};

template <typename T, typename Row>
class Engine {
 public:
  Engine(const State<T>& state, const Columns<T, Row>& matrix, const Targets& targets, const GateParams<T>& gate)
      : state_(state),
        matrix_(matrix),
        targets_(targets),
        gate_params_(gate),
        bounds_(split_columns(matrix.indptr, matrix.n_records, matrix.n_targets)),
        totals_(parts(), matrix.n_targets),
        gates_(matrix.n_records, T(1)),
        slopes_(matrix.n_targets),
        sums_(parts()),
        open_(parts()) {}

  // Draws the gates of an epoch and leaves the totals they give.
  void forward(int64_t epoch) {
    for_each_part(parts(), [&](int64_t part) {
      double* own = totals_.cleared(part);
      open_[part] = 0;
      for_each_block_of(part, [&](int64_t i, int64_t length) { open_[part] += scatter(epoch, i, length, own); });
    });
  }

  // Residuals and loss of the totals at hand.
  double residuals() {
    std::vector<double> losses(target_chunks(matrix_.n_targets)), slopes(losses.size());
    const double bias = state_.bias.read();
    for_each_part(static_cast<int64_t>(losses.size()), [&](int64_t chunk) {
      const int64_t begin = chunk * kTargetChunk, end = std::min(matrix_.n_targets, begin + kTargetChunk);
      double total[kTargetChunk];
      totals_.reduce(begin, end, total);
      for (int64_t j = begin; j < end; ++j) {
        const Residual r = residual(targets_, j, total[j - begin] + bias);
        losses[chunk] += r.loss;
        slopes[chunk] += r.slope;
        slopes_[j] = static_cast<T>(r.slope);
      }
    });
    double loss = 0;
    bias_gradient_ = 0;
    for (const double chunk : losses) loss += chunk;
    for (const double chunk : slopes) bias_gradient_ += chunk;
    return loss;
  }

  // Gradients and Adam for an epoch and, unless it is the last, the forward pass of the next one.
  StepSums step(int64_t epoch, const AdamArgs& adam, bool last) {
    const StepParams<T> params{gate_params_,
                               AdamParams<T>::make(adam.lr, adam.beta1, adam.beta2, adam.epsilon, epoch + 1),
                               static_cast<T>(state_.lambda_l0),
                               static_cast<T>(2 * state_.lambda_l2),
                               state_.link,
                               state_.gates};
    if (const Bias<T>& b = state_.bias; b.value != nullptr)
      *b.value = adam_step(*b.value, static_cast<T>(bias_gradient_), *b.first, *b.second, params.adam);
    for_each_part(parts(), [&](int64_t part) {
      double* own = last ? nullptr : totals_.cleared(part);
      sums_[part] = {};
      open_[part] = 0;
      for_each_block_of(part, [&](int64_t i, int64_t length) {
        const StepSums block = step_block(params, i, length);
        sums_[part].probability += block.probability;
        sums_[part].squares += block.squares;
        if (!last) open_[part] += scatter(epoch + 1, i, length, own);
      });
    });
    StepSums sums;
    for (const StepSums& part : sums_) {
      sums.probability += part.probability;
      sums.squares += part.squares;
    }
    return sums;
  }

  int64_t open_gates() const {
    int64_t count = 0;
    for (const int64_t part : open_) count += part;
    return count;
  }

 private:
  int64_t parts() const { return static_cast<int64_t>(bounds_.size()) - 1; }

  template <typename F>
  void for_each_block_of(int64_t part, const F& fn) {
    for (int64_t i = bounds_[part]; i < bounds_[part + 1]; i += kBlock) fn(i, std::min(kBlock, bounds_[part + 1] - i));
  }

  int64_t scatter(int64_t epoch, int64_t i, int64_t length, double* own) {
    T* gate = gates_.data() + i;
    if (state_.gates)
      gates_range(state_.log_alpha + i, length, state_.first_index + i, {state_.seed, static_cast<uint32_t>(epoch)},
                  gate_params_, gate);
    T weight[kBlock];
    OpenList open;
    weights_range(state_.log_weight + i, gate, length, state_.link, weight);
    list_open(gate, length, open);
    scatter_columns(matrix_, i, open, weight, own);
    return open.count;
  }

  StepSums step_block(const StepParams<T>& params, int64_t i, int64_t length) {
    T gradient[kBlock];
    OpenList open;
    list_open(gates_.data() + i, length, open);
    gather_columns(matrix_, i, open, slopes_.data(), gradient);
    return step_range({state_.log_weight + i, state_.log_alpha + i, state_.weight_first + i, state_.weight_second + i,
                       state_.alpha_first + i, state_.alpha_second + i, state_.anchor ? state_.anchor + i : nullptr,
                       gates_.data() + i, gradient},
                      length, params);
  }

  const State<T> state_;
  const Columns<T, Row> matrix_;
  const Targets targets_;
  const GateParams<T> gate_params_;
  const std::vector<int64_t> bounds_;  // [parts + 1]
  PartTotals totals_;
  std::vector<T> gates_;      // [n_records] z of the epoch at hand
  std::vector<T> slopes_;     // [n_targets] r
  double bias_gradient_ = 0;  // sum of r
  std::vector<StepSums> sums_;
  std::vector<int64_t> open_;
};

template <typename T, typename Row>
void run(Engine<T, Row>& engine, const AdamArgs& adam, int64_t first_epoch, int64_t epochs, double* metrics) {
  std::fill(metrics, metrics + epochs * kMetrics, std::numeric_limits<double>::quiet_NaN());
  if (epochs > 0) engine.forward(first_epoch);
  for (int64_t k = 0; k < epochs; ++k) {
    double* row = metrics + k * kMetrics;
    row[0] = engine.residuals();
    if (!std::isfinite(row[0])) return;
    row[3] = static_cast<double>(engine.open_gates());
    const StepSums sums = engine.step(first_epoch + k, adam, k + 1 == epochs);
    row[1] = sums.probability;
    row[2] = sums.squares;
  }
}

}  // namespace l0fast::cpu
