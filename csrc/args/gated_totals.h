#pragma once

#include "args/gate.h"

namespace l0fast {

struct GatedTotalsArgs {
  const Tensor &log_weight, &log_alpha, &indptr, &rows, &values;
  NoiseArgs noise;
  int64_t link;
  bool gates;
  GateArgs gate;

  void check(const char* op) const {
    check_gate(op, gate, noise, log_weight);
    checked_link(op, link);
    check_real(op, "log_weight", log_weight);
    const int64_t n = log_weight.dim() == 1 ? log_weight.size(0) : -1;
    check_vector(op, "log_weight", log_weight, n, log_weight.scalar_type());
    check_vector(op, "log_alpha", log_alpha, n, log_weight.scalar_type());
    check_device(op, "log_alpha", log_alpha, log_weight);
    check_columns(op, indptr, rows, values, n, log_weight);
  }

  void check_gradients(const char* op, const Tensor& grad_totals, const Tensor& grad_penalty) const {
    check_vector(op, "grad_totals", grad_totals, grad_totals.dim() == 1 ? grad_totals.size(0) : -1,
                 log_weight.scalar_type());
    check_device(op, "grad_totals", grad_totals, log_weight);
    check_dtype(op, "grad_penalty", grad_penalty, log_weight.scalar_type());
    check_device(op, "grad_penalty", grad_penalty, log_weight);
    if (grad_penalty.numel() != 1) fail(op, "grad_penalty", "expected one element, got ", shape_text(grad_penalty));
  }
};

}  // namespace l0fast
