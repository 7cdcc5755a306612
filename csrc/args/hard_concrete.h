#pragma once

#include "args/gate.h"

namespace l0fast {

inline void check_hard_concrete(const char* op, const Tensor& log_alpha, const GateArgs& gate, const NoiseArgs& noise) {
  check_gate(op, gate, noise, log_alpha);
  check_floating(op, "log_alpha", log_alpha);
}

inline void check_hard_concrete_gradient(const char* op, const Tensor& grad_z, const Tensor& log_alpha) {
  check_dtype(op, "grad_z", grad_z, log_alpha.scalar_type());
  check_device(op, "grad_z", grad_z, log_alpha);
  check_contiguous(op, "grad_z", grad_z);
  if (grad_z.numel() != log_alpha.numel())
    fail(op, "grad_z", "expected shape ", shape_text(log_alpha), ", got ", shape_text(grad_z));
}

}  // namespace l0fast
