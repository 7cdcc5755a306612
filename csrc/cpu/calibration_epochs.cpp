// Whole epochs of calibration: checks and launch. The work is in calibration_engine.h.
#include <torch/csrc/stable/library.h>

#include "cpu/calibration_engine.h"
#include "cpu/columns_args.h"
#include "cpu/gate_args.h"

namespace l0fast::cpu {
namespace {

struct NamedTensor {
  const char* name;
  const Tensor& tensor;
};

const double* optional_data(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr<double>() : nullptr;
}

struct BiasArgs {
  const std::optional<Tensor>&value, &first, &second;

  void check(const char* op, ScalarType real) const {
    if (value.has_value() != first.has_value() || value.has_value() != second.has_value())
      fail(op, "bias", "expected it with bias_exp_avg and bias_exp_avg_sq or none of the three, got a part of them");
    if (!value.has_value()) return;
    check_vector(op, "bias", *value, 1, real);
    check_vector(op, "bias_exp_avg", *first, 1, real);
    check_vector(op, "bias_exp_avg_sq", *second, 1, real);
  }

  template <typename T>
  Bias<T> pointers() const {
    if (!value.has_value()) return {nullptr, nullptr, nullptr};
    return {value->mutable_data_ptr<T>(), first->mutable_data_ptr<T>(), second->mutable_data_ptr<T>()};
  }
};

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
  const std::optional<Tensor> some_seed = seed;
  const GateArgs gate{temperature, gamma, zeta, bound, u_bound, true};
  check_gate(op, gate, {some_seed, first_epoch, first_index}, log_weight);
  const Link checked = checked_link(op, link);
  check_real(op, "log_weight", log_weight);
  const ScalarType real = log_weight.scalar_type();
  const int64_t n = log_weight.dim() == 1 ? log_weight.size(0) : -1;
  for (const NamedTensor& t : {NamedTensor{"log_weight", log_weight},
                               {"log_alpha", log_alpha},
                               {"weight_exp_avg", weight_exp_avg},
                               {"weight_exp_avg_sq", weight_exp_avg_sq},
                               {"alpha_exp_avg", alpha_exp_avg},
                               {"alpha_exp_avg_sq", alpha_exp_avg_sq}})
    check_vector(op, t.name, t.tensor, n, real);
  const BiasArgs intercept{bias, bias_exp_avg, bias_exp_avg_sq};
  intercept.check(op, real);
  if (anchor.has_value()) check_vector(op, "anchor", *anchor, n, real);
  check_columns(op, indptr, rows, values, n, real);
  const int64_t m = targets.dim() == 1 ? targets.size(0) : -1;
  check_vector(op, "targets", targets, m, ScalarType::Double);
  check_vector(op, "scales", scales, m, ScalarType::Double);
  check_vector(op, "omega", omega, m, ScalarType::Double);
  if (tolerances.has_value()) check_vector(op, "tolerances", *tolerances, m, ScalarType::Double);
  if (rho < 0 || rho > 2) fail(op, "rho", "expected 0, 1 or 2, got ", rho);
  if (epochs < 0 || first_epoch + epochs > int64_t{0xffffffff})
    fail(op, "epochs", "expected a count with first_epoch + epochs < 2^32, got ", epochs);
  Tensor metrics = torch::stable::empty({epochs, kMetrics}, ScalarType::Double);
  with_real(log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_columns<T>(op, indptr, rows, values, m, [&](const auto& matrix) {
      const State<T> state{log_weight.mutable_data_ptr<T>(),
                           log_alpha.mutable_data_ptr<T>(),
                           weight_exp_avg.mutable_data_ptr<T>(),
                           weight_exp_avg_sq.mutable_data_ptr<T>(),
                           alpha_exp_avg.mutable_data_ptr<T>(),
                           alpha_exp_avg_sq.mutable_data_ptr<T>(),
                           anchor.has_value() ? anchor->const_data_ptr<T>() : nullptr,
                           seed.const_data_ptr<int64_t>(),
                           first_index,
                           lambda_l0,
                           lambda_l2,
                           checked,
                           gates,
                           intercept.pointers<T>()};
      const Targets problem{
          targets.const_data_ptr<double>(), scales.const_data_ptr<double>(), omega.const_data_ptr<double>(),
          optional_data(tolerances),        static_cast<Rho>(rho),           cap};
      Engine engine(state, matrix, problem, gate.params<T>());
      run(engine, {lr, beta1, beta2, epsilon}, first_epoch, epochs, metrics.mutable_data_ptr<double>());
    });
  });
  return metrics;
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("calibration_epochs_", TORCH_BOX(&calibration_epochs_));
}

}  // namespace l0fast::cpu
