#pragma once

#include <vector>

#include "args/gate.h"

namespace l0fast {

inline void check_batch_gates(const char* op, const Tensor& log_alpha, const GateArgs& gate, const NoiseArgs& noise) {
  check_gate(op, gate, noise, log_alpha);
  check_floating(op, "log_alpha", log_alpha);
}

inline void check_batch(const char* op, int64_t batch) {
  if (batch < 0) fail(op, "batch", "expected at least 0, got ", batch);
}

// Returns the number of examples in grad_z.
inline int64_t check_batch_gradient(const char* op, const Tensor& grad_z, const Tensor& log_alpha) {
  check_dtype(op, "grad_z", grad_z, log_alpha.scalar_type());
  check_device(op, "grad_z", grad_z, log_alpha);
  check_contiguous(op, "grad_z", grad_z);
  const int64_t batch = grad_z.dim() > 0 ? grad_z.size(0) : -1;
  if (grad_z.dim() != log_alpha.dim() + 1 || grad_z.numel() != batch * log_alpha.numel())
    fail(op, "grad_z", "expected [batch, shape of log_alpha ", shape_text(log_alpha), "], got ", shape_text(grad_z));
  return batch;
}

// The shape of z: [batch, shape of log_alpha].
inline std::vector<int64_t> batch_shape(const Tensor& log_alpha, int64_t batch) {
  std::vector<int64_t> shape{batch};
  for (int64_t d = 0; d < log_alpha.dim(); ++d) shape.push_back(log_alpha.size(d));
  return shape;
}

}  // namespace l0fast
