// What calibration_epochs_ and calibration_step_ have in common: the records' state, the matrix and the scalars of a
// step.
#pragma once

#include "args/gate.h"
#include "math/calibration_step.h"

namespace l0fast {

struct NamedTensor {
  const char* name;
  const Tensor& tensor;
};

template <typename T>
const T* optional_data(const OptionalTensor& t) {
  return t.has_value() ? t->const_data_ptr<T>() : nullptr;
}

template <typename T>
T* optional_mutable_data(const OptionalTensor& t) {
  return t.has_value() ? t->mutable_data_ptr<T>() : nullptr;
}

// By the names of the schemas; stream is the epoch that a call begins with.
struct CalibrationArgs {
  const Tensor &log_weight, &log_alpha, &weight_exp_avg, &weight_exp_avg_sq, &alpha_exp_avg, &alpha_exp_avg_sq;
  const Tensor &indptr, &rows, &values;
  const OptionalTensor &anchor, &low, &high;
  const OptionalTensor& seed;
  int64_t stream, first_index, link;
  bool gates;
  GateArgs gate;
  double lambda_l0, lambda_l2, lambda_l1;
  AdamArgs adam;

  ScalarType real() const { return log_weight.scalar_type(); }
  int64_t n_records() const { return log_weight.dim() == 1 ? log_weight.size(0) : -1; }

  // But for Adam, whose corrections change from step to step.
  template <typename T>
  StepParams<T> step_params() const {
    return {gate.params<T>(),
            {},
            static_cast<T>(lambda_l0),
            static_cast<T>(2 * lambda_l2),
            static_cast<T>(adam.lr * lambda_l1),
            static_cast<Link>(link),
            gates};
  }

  void check(const char* op) const {
    check_gate(op, gate, {seed, stream, first_index}, log_weight);
    checked_link(op, link);
    check_real(op, "log_weight", log_weight);
    for (const NamedTensor& t : {NamedTensor{"log_weight", log_weight},
                                 {"log_alpha", log_alpha},
                                 {"weight_exp_avg", weight_exp_avg},
                                 {"weight_exp_avg_sq", weight_exp_avg_sq},
                                 {"alpha_exp_avg", alpha_exp_avg},
                                 {"alpha_exp_avg_sq", alpha_exp_avg_sq}})
      check_placed(op, t.name, t.tensor, n_records(), real());
    check_optional(op, "anchor", anchor);
    check_optional(op, "low", low);
    check_optional(op, "high", high);
    if (!(lambda_l1 >= 0)) fail(op, "lambda_l1", "expected a non-negative number, got ", lambda_l1);
    if (lambda_l1 > 0 && static_cast<Link>(link) != Link::kIdentity)
      fail(op, "lambda_l1", "expected 0 unless link is 1 (identity), got ", lambda_l1);
    check_columns(op, indptr, rows, values, n_records(), log_weight);
  }

  void check_placed(const char* op, const char* name, const Tensor& t, int64_t length, ScalarType type) const {
    check_vector(op, name, t, length, type);
    check_device(op, name, t, log_weight);
  }

 private:
  void check_optional(const char* op, const char* name, const OptionalTensor& t) const {
    if (t.has_value()) check_placed(op, name, *t, n_records(), real());
  }
};

}  // namespace l0fast
