// Whole epochs of calibration: checks and launch. The work is in calibration_engine.h.
#include <torch/csrc/stable/library.h>

#include "args/calibration_epochs.h"
#include "cpu/calibration_args.h"
#include "cpu/calibration_engine.h"
#include "cpu/columns_args.h"

namespace l0fast::cpu {
namespace {

Tensor run_epochs(const EpochArgs& args) {
  Tensor metrics = torch::stable::empty({args.epochs, kMetrics}, ScalarType::Double);
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_columns<T>(kEpochsOp, args.indptr, args.rows, args.values, args.n_targets(), [&](const auto& matrix) {
      const Bias<T> bias{optional_mutable_data<T>(args.bias), optional_mutable_data<T>(args.bias_exp_avg),
                         optional_mutable_data<T>(args.bias_exp_avg_sq)};
      Engine engine(state_of<T>(args, nullptr, nullptr), matrix, args.problem(), bias);
      run(engine, args.adam, args.first_epoch(), args.epochs, metrics.mutable_data_ptr<double>());
    });
  });
  return metrics;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("calibration_epochs_", TORCH_BOX(&calibration_epochs_op<&run_epochs>));
}

}  // namespace l0fast::cpu
