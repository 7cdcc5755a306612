// Whole epochs of calibration: checks and launch. The work is in calibration_engine.h.
#include <torch/csrc/stable/library.h>

#include "args/calibration_epochs.h"
#include "cpu/calibration_engine.h"
#include "cpu/columns_args.h"
#include "cpu/gate_args.h"

namespace l0fast::cpu {
namespace {

template <typename T>
State<T> state_of(const EpochArgs& a) {
  return {a.log_weight.mutable_data_ptr<T>(),
          a.log_alpha.mutable_data_ptr<T>(),
          a.weight_exp_avg.mutable_data_ptr<T>(),
          a.weight_exp_avg_sq.mutable_data_ptr<T>(),
          a.alpha_exp_avg.mutable_data_ptr<T>(),
          a.alpha_exp_avg_sq.mutable_data_ptr<T>(),
          optional_data<T>(a.anchor),
          a.seed->const_data_ptr<int64_t>(),
          a.first_index,
          a.lambda_l0,
          a.lambda_l2,
          static_cast<Link>(a.link),
          a.gates,
          {optional_mutable_data<T>(a.bias), optional_mutable_data<T>(a.bias_exp_avg),
           optional_mutable_data<T>(a.bias_exp_avg_sq)}};
}

Tensor run_epochs(const EpochArgs& args) {
  Tensor metrics = torch::stable::empty({args.epochs, kMetrics}, ScalarType::Double);
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_columns<T>(kEpochsOp, args.indptr, args.rows, args.values, args.n_targets(), [&](const auto& matrix) {
      Engine engine(state_of<T>(args), matrix, args.problem(), args.gate.params<T>());
      run(engine, {args.lr, args.beta1, args.beta2, args.epsilon}, args.first_epoch, args.epochs,
          metrics.mutable_data_ptr<double>());
    });
  });
  return metrics;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("calibration_epochs_", TORCH_BOX(&calibration_epochs_op<&run_epochs>));
}

}  // namespace l0fast::cpu
