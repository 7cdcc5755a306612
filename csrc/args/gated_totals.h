#pragma once

#include <tuple>

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

// The ops as the dispatcher calls them: arguments gathered and checked, then kRun. CPU and CUDA register them with
// theirs.
using TwoTensors = std::tuple<Tensor, Tensor>;

template <TwoTensors (*kRun)(const GatedTotalsArgs&, int64_t n_targets)>
TwoTensors gated_totals_op(const Tensor& log_weight, const Tensor& log_alpha, const Tensor& indptr, const Tensor& rows,
                           const Tensor& values, int64_t n_targets, const std::optional<Tensor>& seed, int64_t stream,
                           int64_t first_index, int64_t link, bool gates, double temperature, double gamma, double zeta,
                           double bound, double u_bound, bool eval_temperature) {
  const GatedTotalsArgs args{log_weight, log_alpha, indptr,
                             rows,       values,    {seed, stream, first_index},
                             link,       gates,     {temperature, gamma, zeta, bound, u_bound, eval_temperature}};
  args.check("gated_totals");
  if (n_targets < 0) fail("gated_totals", "n_targets", "expected a count, got ", n_targets);
  return kRun(args, n_targets);
}

template <TwoTensors (*kRun)(const GatedTotalsArgs&, const Tensor& grad_totals, const Tensor& grad_penalty)>
TwoTensors gated_totals_backward_op(const Tensor& grad_totals, const Tensor& grad_penalty, const Tensor& log_weight,
                                    const Tensor& log_alpha, const Tensor& indptr, const Tensor& rows,
                                    const Tensor& values, const std::optional<Tensor>& seed, int64_t stream,
                                    int64_t first_index, int64_t link, bool gates, double temperature, double gamma,
                                    double zeta, double bound, double u_bound, bool eval_temperature) {
  const char* op = "gated_totals_backward";
  const GatedTotalsArgs args{log_weight, log_alpha, indptr,
                             rows,       values,    {seed, stream, first_index},
                             link,       gates,     {temperature, gamma, zeta, bound, u_bound, eval_temperature}};
  args.check(op);
  args.check_gradients(op, grad_totals, grad_penalty);
  return kRun(args, grad_totals, grad_penalty);
}

}  // namespace l0fast
