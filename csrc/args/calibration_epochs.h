#pragma once

#include "args/calibration.h"
#include "math/objective.h"

namespace l0fast {

constexpr int64_t kMetrics = 4;  // data loss, sum p, sum of squares, open gates

struct EpochArgs : CalibrationArgs {
  const OptionalTensor &bias, &bias_exp_avg, &bias_exp_avg_sq;
  const Tensor &targets, &scales, &omega;
  const OptionalTensor& tolerances;
  int64_t rho;
  double cap;
  int64_t epochs;

  int64_t first_epoch() const { return stream; }
  int64_t n_targets() const { return targets.dim() == 1 ? targets.size(0) : -1; }

  Targets problem() const {
    return {targets.const_data_ptr<double>(),  scales.const_data_ptr<double>(), omega.const_data_ptr<double>(),
            optional_data<double>(tolerances), static_cast<Rho>(rho),           cap};
  }

  void check(const char* op) const {
    CalibrationArgs::check(op);
    check_bias(op);
    for (const NamedTensor& t : {NamedTensor{"targets", targets}, {"scales", scales}, {"omega", omega}})
      check_placed(op, t.name, t.tensor, n_targets(), ScalarType::Double);
    if (tolerances.has_value()) check_placed(op, "tolerances", *tolerances, n_targets(), ScalarType::Double);
    if (rho < 0 || rho > 2) fail(op, "rho", "expected 0, 1 or 2, got ", rho);
    if (epochs < 0 || first_epoch() + epochs > int64_t{0xffffffff})
      fail(op, "epochs", "expected a count with first_epoch + epochs < 2^32, got ", epochs);
  }

 private:
  void check_bias(const char* op) const {
    if (bias.has_value() != bias_exp_avg.has_value() || bias.has_value() != bias_exp_avg_sq.has_value())
      fail(op, "bias", "expected it with bias_exp_avg and bias_exp_avg_sq or none of the three, got a part of them");
    if (!bias.has_value()) return;
    check_placed(op, "bias", *bias, 1, real());
    check_placed(op, "bias_exp_avg", *bias_exp_avg, 1, real());
    check_placed(op, "bias_exp_avg_sq", *bias_exp_avg_sq, 1, real());
  }
};

constexpr const char* kEpochsOp = "calibration_epochs_";

// The op as the dispatcher calls it: arguments gathered and checked, then kRun. CPU and CUDA register it with theirs.
template <Tensor (*kRun)(const EpochArgs&)>
Tensor calibration_epochs_op(const Tensor& log_weight, const Tensor& log_alpha, const Tensor& weight_exp_avg,
                             const Tensor& weight_exp_avg_sq, const Tensor& alpha_exp_avg,
                             const Tensor& alpha_exp_avg_sq, const OptionalTensor& bias,
                             const OptionalTensor& bias_exp_avg, const OptionalTensor& bias_exp_avg_sq,
                             const Tensor& indptr, const Tensor& rows, const Tensor& values, const Tensor& targets,
                             const Tensor& scales, const Tensor& omega, const OptionalTensor& tolerances,
                             const OptionalTensor& anchor, const OptionalTensor& low, const OptionalTensor& high,
                             int64_t rho, double cap, const Tensor& seed, int64_t first_epoch, int64_t epochs,
                             int64_t first_index, int64_t link, bool gates, double temperature, double gamma,
                             double zeta, double bound, double u_bound, double lambda_l0, double lambda_l2,
                             double lambda_l1, double lr, double beta1, double beta2, double epsilon) {
  const OptionalTensor some_seed = seed;
  const EpochArgs args{{log_weight,
                        log_alpha,
                        weight_exp_avg,
                        weight_exp_avg_sq,
                        alpha_exp_avg,
                        alpha_exp_avg_sq,
                        indptr,
                        rows,
                        values,
                        anchor,
                        low,
                        high,
                        some_seed,
                        first_epoch,
                        first_index,
                        link,
                        gates,
                        {temperature, gamma, zeta, bound, u_bound, true},
                        lambda_l0,
                        lambda_l2,
                        lambda_l1,
                        {lr, beta1, beta2, epsilon}},
                       bias,
                       bias_exp_avg,
                       bias_exp_avg_sq,
                       targets,
                       scales,
                       omega,
                       tolerances,
                       rho,
                       cap,
                       epochs};
  args.check(kEpochsOp);
  return kRun(args);
}

}  // namespace l0fast
