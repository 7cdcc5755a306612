// The loop of the epochs: the passes over the records, and between them the residuals of the totals.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "args/calibration_epochs.h"
#include "cpu/calibration_passes.h"

namespace l0fast::cpu {

// One number added to every total, trained without gate, noise or penalty.
template <typename T>
struct Bias {
  T *value, *first, *second;  // [1] each, or nullptr: none

  double read() const { return value == nullptr ? 0.0 : static_cast<double>(*value); }
};

template <typename T, typename Row>
class Engine {
 public:
  // state: without gates and slopes, which the engine has.
  Engine(const State<T>& state, const Columns<T, Row>& matrix, const Targets& targets, const Bias<T>& bias)
      : targets_(targets),
        bias_(bias),
        gates_(matrix.n_records, T(1)),
        slopes_(matrix.n_targets),
        passes_(with_own_memory(state), matrix) {}

  void forward(int64_t epoch) { passes_.forward(epoch); }

  // Residuals and loss of the totals at hand.
  double residuals() {
    std::vector<double> losses(target_chunks(static_cast<int64_t>(slopes_.size()))), slopes(losses.size());
    const double bias = bias_.read();
    passes_.for_each_chunk_of_totals([&](int64_t chunk, int64_t begin, int64_t end, const double* total) {
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

  StepSums step(int64_t epoch, const AdamArgs& args, bool last) {
    const auto adam = AdamParams<T>::make(args, epoch + 1);
    if (bias_.value != nullptr)
      *bias_.value = adam_step(*bias_.value, static_cast<T>(bias_gradient_), *bias_.first, *bias_.second, adam);
    return passes_.step(epoch, adam, last);
  }

  int64_t open_gates() const { return passes_.open_gates(); }

 private:
  State<T> with_own_memory(State<T> state) {
    state.gate = gates_.data();
    state.slopes = slopes_.data();
    return state;
  }

  const Targets targets_;
  const Bias<T> bias_;
  std::vector<T> gates_;      // [n_records] z of the epoch at hand
  std::vector<T> slopes_;     // [n_targets] r
  double bias_gradient_ = 0;  // sum of r
  Passes<T, Row> passes_;
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
