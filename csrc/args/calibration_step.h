#pragma once

#include <tuple>

#include "args/calibration.h"

namespace l0fast {

constexpr int64_t kStepSums = 3;  // sum p, sum of squares, open gates

struct StepArgs : CalibrationArgs {
  const Tensor& drawn;  // the schema's `gate`: z of the epoch, then of the one after it
  int64_t n_targets;
  const OptionalTensor& slopes;

  int64_t epoch() const { return stream; }

  void check(const char* op) const {
    CalibrationArgs::check(op);
    check_placed(op, "gate", drawn, n_records(), real());
    if (n_targets < 0) fail(op, "n_targets", "expected a count, got ", n_targets);
    if (slopes.has_value()) check_placed(op, "slopes", *slopes, n_targets, ScalarType::Double);
    if (epoch() >= int64_t{0xffffffff}) fail(op, "epoch", "expected 0 <= epoch < 2^32 - 1, got ", epoch());
  }
};

constexpr const char* kStepOp = "calibration_step_";

using TotalsAndSums = std::tuple<Tensor, Tensor>;  // [n_targets] and [kStepSums], float64

// The op as the dispatcher calls it: arguments gathered and checked, then kRun. CPU and CUDA register it with theirs.
template <TotalsAndSums (*kRun)(const StepArgs&)>
TotalsAndSums calibration_step_op(const Tensor& log_weight, const Tensor& log_alpha, const Tensor& weight_exp_avg,
                                  const Tensor& weight_exp_avg_sq, const Tensor& alpha_exp_avg,
                                  const Tensor& alpha_exp_avg_sq, const Tensor& gate, const Tensor& indptr,
                                  const Tensor& rows, const Tensor& values, int64_t n_targets,
                                  const OptionalTensor& slopes, const OptionalTensor& anchor, const OptionalTensor& low,
                                  const OptionalTensor& high, const Tensor& seed, int64_t epoch, int64_t first_index,
                                  int64_t link, bool gates, double temperature, double gamma, double zeta, double bound,
                                  double u_bound, double lambda_l0, double lambda_l2, double lambda_l1, double lr,
                                  double beta1, double beta2, double epsilon) {
  const OptionalTensor some_seed = seed;
  const StepArgs args{{log_weight,
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
                       epoch,
                       first_index,
                       link,
                       gates,
                       {temperature, gamma, zeta, bound, u_bound, true},
                       lambda_l0,
                       lambda_l2,
                       lambda_l1,
                       {lr, beta1, beta2, epsilon}},
                      gate,
                      n_targets,
                      slopes};
  args.check(kStepOp);
  return kRun(args);
}

}  // namespace l0fast
