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

}  // namespace

Tensor calibration_epochs_(const Tensor& log_weight, const Tensor& log_alpha, const Tensor& weight_exp_avg,
                           const Tensor& weight_exp_avg_sq, const Tensor& alpha_exp_avg, const Tensor& alpha_exp_avg_sq,
                           const std::optional<Tensor>& bias, const std::optional<Tensor>& bias_exp_avg,
                           const std::optional<Tensor>& bias_exp_avg_sq, const Tensor& indptr, const Tensor& rows,
                           const Tensor& values, const Tensor& targets, const Tensor& scales, const Tensor& omega,
                           const std::optional<Tensor>& tolerances, const std::optional<Tensor>& anchor, int64_t rho,
                           double cap, const Tensor& seed, int64_t first_epoch, int64_t epochs, int64_t first_index,
                           int64_t link, bool gates, double temperature, double gamma, double zeta, double bound,
                           double u_bound, double lambda_l0, double lambda_l2, double lr, double beta1, double beta2,
                           double epsilon) {
  const char* op = "calibration_epochs_";
  const OptionalTensor some_seed = seed;
  const EpochArgs args{log_weight,
                       log_alpha,
                       weight_exp_avg,
                       weight_exp_avg_sq,
                       alpha_exp_avg,
                       alpha_exp_avg_sq,
                       bias,
                       bias_exp_avg,
                       bias_exp_avg_sq,
                       indptr,
                       rows,
                       values,
                       targets,
                       scales,
                       omega,
                       tolerances,
                       anchor,
                       rho,
                       cap,
                       some_seed,
                       first_epoch,
                       epochs,
                       first_index,
                       link,
                       gates,
                       {temperature, gamma, zeta, bound, u_bound, true},
                       lambda_l0,
                       lambda_l2,
                       lr,
                       beta1,
                       beta2,
                       epsilon};
  args.check(op);
  Tensor metrics = torch::stable::empty({epochs, kMetrics}, ScalarType::Double);
  with_real(log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_columns<T>(op, indptr, rows, values, args.n_targets(), [&](const auto& matrix) {
      const Targets problem{
          targets.const_data_ptr<double>(),  scales.const_data_ptr<double>(), omega.const_data_ptr<double>(),
          optional_data<double>(tolerances), static_cast<Rho>(rho),           cap};
      Engine engine(state_of<T>(args), matrix, problem, args.gate.params<T>());
      run(engine, {lr, beta1, beta2, epsilon}, first_epoch, epochs, metrics.mutable_data_ptr<double>());
    });
  });
  return metrics;
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("calibration_epochs_", TORCH_BOX(&calibration_epochs_));
}

}  // namespace l0fast::cpu
