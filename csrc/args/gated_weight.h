#pragma once

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

// Checks what forward and backward share. With a value: gates per slice; without: per element.
inline std::optional<Slices> check_gated_weight(const char* op, const Tensor& weight, const Tensor& log_alpha,
                                                std::optional<int64_t> dim, const GateArgs& gate,
                                                const NoiseArgs& noise) {
  check_gate(op, gate, noise, weight);
  check_floating(op, "weight", weight);
  check_dtype(op, "log_alpha", log_alpha, weight.scalar_type());
  check_device(op, "log_alpha", log_alpha, weight);
  check_contiguous(op, "log_alpha", log_alpha);
  if (dim.has_value()) return slices_of(op, weight, log_alpha, *dim);
  if (log_alpha.numel() != weight.numel())
    fail(op, "log_alpha", "expected a gate for each element of weight ", shape_text(weight), ", got shape ",
         shape_text(log_alpha));
  return std::nullopt;
}

// A tensor like weight: grad_v or v.
inline void check_like_weight(const char* op, const char* argument, const Tensor& t, const Tensor& weight) {
  check_same(op, argument, t, weight);
  check_device(op, argument, t, weight);
}

inline void check_penalty_gradient(const char* op, const std::optional<Tensor>& grad_penalty, const Tensor& weight) {
  if (!grad_penalty.has_value()) return;
  check_dtype(op, "grad_penalty", *grad_penalty, sum_type(weight));
  check_device(op, "grad_penalty", *grad_penalty, weight);
  if (grad_penalty->numel() != 1)
    fail(op, "grad_penalty", "expected one element, got shape ", shape_text(*grad_penalty));
}

inline void check_gated_weight_gradients(const char* op, const Tensor& grad_v,
                                         const std::optional<Tensor>& grad_penalty, const Tensor& weight,
                                         const std::optional<Tensor>& v) {
  check_like_weight(op, "grad_v", grad_v, weight);
  if (v.has_value()) check_like_weight(op, "v", *v, weight);
  check_penalty_gradient(op, grad_penalty, weight);
}

}  // namespace l0fast
