// One epoch whose residuals come from outside: checks and launch. The work is in calibration_passes.h.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "args/calibration_step.h"
#include "cpu/calibration_args.h"
#include "cpu/columns_args.h"

namespace l0fast::cpu {
namespace {

// The slopes as the gather takes them.
template <typename T>
std::vector<T> slopes_of(const StepArgs& args) {
  if (!args.slopes.has_value()) return {};
  const double* slopes = args.slopes->const_data_ptr<double>();
  std::vector<T> own(args.n_targets);
  for (int64_t j = 0; j < args.n_targets; ++j) own[j] = static_cast<T>(slopes[j]);
  return own;
}

template <typename T, typename Row>
void run(const StepArgs& args, const Columns<T, Row>& matrix, double* totals, double* sums) {
  const std::vector<T> slopes = slopes_of<T>(args);
  T* gate = args.drawn.mutable_data_ptr<T>();
  if (!args.gates) std::fill(gate, gate + matrix.n_records, T(1));
  Passes<T, Row> passes(state_of<T>(args, gate, slopes.data()), matrix);
  StepSums before;
  if (args.slopes.has_value()) {
    before = passes.step(args.epoch(), AdamParams<T>::make(args.adam, args.epoch() + 1), false);
  } else {
    passes.forward(args.epoch());
  }
  passes.for_each_chunk_of_totals([&](int64_t, int64_t begin, int64_t end, const double* total) {
    std::copy(total, total + (end - begin), totals + begin);
  });
  sums[0] = before.probability;
  sums[1] = before.squares;
  sums[2] = static_cast<double>(passes.open_gates());
}

TotalsAndSums run_step(const StepArgs& args) {
  Tensor totals = torch::stable::empty({args.n_targets}, ScalarType::Double);
  Tensor sums = torch::stable::empty({kStepSums}, ScalarType::Double);
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_columns<T>(kStepOp, args.indptr, args.rows, args.values, args.n_targets, [&](const auto& matrix) {
      run(args, matrix, totals.mutable_data_ptr<double>(), sums.mutable_data_ptr<double>());
    });
  });
  return {totals, sums};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("calibration_step_", TORCH_BOX(&calibration_step_op<&run_step>));
}

}  // namespace l0fast::cpu
