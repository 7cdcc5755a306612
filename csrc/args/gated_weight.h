#pragma once

#include <tuple>

#include "args/gate.h"
#include "math/slices.h"

namespace l0fast {

inline Slices slices_of(const char* op, const Tensor& weight, const Tensor& log_alpha, int64_t dim) {
  if (dim < 0 || dim >= weight.dim())
    fail(op, "dim", "expected a dimension of weight ", shape_text(weight), ", got ", dim);
  if (log_alpha.numel() != weight.size(dim))
    fail(op, "log_alpha", "expected ", weight.size(dim), " gates for dim ", dim, " of weight ", shape_text(weight),
         ", got shape ", shape_text(log_alpha));
  Slices s{1, weight.size(dim), 1};
  for (int64_t d = 0; d < dim; ++d) s.outer *= weight.size(d);
  for (int64_t d = dim + 1; d < weight.dim(); ++d) s.inner *= weight.size(d);
  return s;
}

struct GatedWeightArgs {
  const Tensor &weight, &log_alpha;
  NoiseArgs noise;
  GateArgs gate;
  std::optional<Slices> slices;  // with a value: gates per slice; without: per element

  // Checks what forward and backward share.
  static GatedWeightArgs checked(const char* op, const Tensor& weight, const Tensor& log_alpha,
                                 std::optional<int64_t> dim, const NoiseArgs& noise, const GateArgs& gate) {
    check_gate(op, gate, noise, weight);
    check_floating(op, "weight", weight);
    check_dtype(op, "log_alpha", log_alpha, weight.scalar_type());
    check_device(op, "log_alpha", log_alpha, weight);
    check_contiguous(op, "log_alpha", log_alpha);
    if (dim.has_value()) return {weight, log_alpha, noise, gate, slices_of(op, weight, log_alpha, *dim)};
    if (log_alpha.numel() != weight.numel())
      fail(op, "log_alpha", "expected a gate for each element of weight ", shape_text(weight), ", got shape ",
           shape_text(log_alpha));
    return {weight, log_alpha, noise, gate, std::nullopt};
  }

  void check_gradients(const char* op, const Tensor& grad_v, const OptionalTensor& grad_penalty,
                       const OptionalTensor& v) const {
    check_like_weight(op, "grad_v", grad_v);
    if (v.has_value()) check_like_weight(op, "v", *v);
    if (!grad_penalty.has_value()) return;
    check_dtype(op, "grad_penalty", *grad_penalty, sum_type(weight));
    check_device(op, "grad_penalty", *grad_penalty, weight);
    if (grad_penalty->numel() != 1)
      fail(op, "grad_penalty", "expected one element, got shape ", shape_text(*grad_penalty));
  }

 private:
  void check_like_weight(const char* op, const char* argument, const Tensor& t) const {
    check_same(op, argument, t, weight);
    check_device(op, argument, t, weight);
  }
};

// The ops as the dispatcher calls them: arguments gathered and checked, then kRun. CPU and CUDA register them with
// theirs.
using WeightPair = std::tuple<Tensor, Tensor>;

template <WeightPair (*kRun)(const GatedWeightArgs&, bool with_penalty)>
WeightPair gated_weight_op(const Tensor& weight, const Tensor& log_alpha, const OptionalTensor& seed,
                           std::optional<int64_t> dim, bool with_penalty, int64_t stream, int64_t first_index,
                           double temperature, double gamma, double zeta, double bound, double u_bound,
                           bool eval_temperature) {
  const auto args = GatedWeightArgs::checked("gated_weight", weight, log_alpha, dim, {seed, stream, first_index},
                                             {temperature, gamma, zeta, bound, u_bound, eval_temperature});
  return kRun(args, with_penalty);
}

template <WeightPair (*kRun)(const GatedWeightArgs&, const Tensor& grad_v, const OptionalTensor& grad_penalty,
                             const OptionalTensor& v)>
WeightPair gated_weight_backward_op(const Tensor& grad_v, const OptionalTensor& grad_penalty, const Tensor& weight,
                                    const Tensor& log_alpha, const OptionalTensor& v, const OptionalTensor& seed,
                                    std::optional<int64_t> dim, int64_t stream, int64_t first_index, double temperature,
                                    double gamma, double zeta, double bound, double u_bound, bool eval_temperature) {
  const char* op = "gated_weight_backward";
  const auto args = GatedWeightArgs::checked(op, weight, log_alpha, dim, {seed, stream, first_index},
                                             {temperature, gamma, zeta, bound, u_bound, eval_temperature});
  args.check_gradients(op, grad_v, grad_penalty, v);
  return kRun(args, grad_v, grad_penalty, v);
}

template <void (*kRun)(const GatedWeightArgs&, Tensor& grad_v, Tensor& v, const OptionalTensor& grad_penalty)>
void gated_weight_backward_in_place_op(Tensor grad_v, Tensor v, const OptionalTensor& grad_penalty,
                                       const Tensor& weight, const Tensor& log_alpha, const OptionalTensor& seed,
                                       int64_t stream, int64_t first_index, double temperature, double gamma,
                                       double zeta, double bound, double u_bound, bool eval_temperature) {
  const char* op = "gated_weight_backward_";
  const auto args = GatedWeightArgs::checked(op, weight, log_alpha, std::nullopt, {seed, stream, first_index},
                                             {temperature, gamma, zeta, bound, u_bound, eval_temperature});
  check_real(op, "weight", weight);
  args.check_gradients(op, grad_v, grad_penalty, v);
  kRun(args, grad_v, v, grad_penalty);
}

}  // namespace l0fast
