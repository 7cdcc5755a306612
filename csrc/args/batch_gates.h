#pragma once

#include <vector>

#include "args/gate.h"

namespace l0fast {

struct BatchGatesArgs {
  const Tensor& log_alpha;
  NoiseArgs noise;
  GateArgs gate;

  void check(const char* op) const {
    check_gate(op, gate, noise, log_alpha);
    check_floating(op, "log_alpha", log_alpha);
  }

  // Returns the number of examples in grad_z.
  int64_t checked_batch(const char* op, const Tensor& grad_z) const {
    check_dtype(op, "grad_z", grad_z, log_alpha.scalar_type());
    check_device(op, "grad_z", grad_z, log_alpha);
    check_contiguous(op, "grad_z", grad_z);
    const int64_t batch = grad_z.dim() > 0 ? grad_z.size(0) : -1;
    if (grad_z.dim() != log_alpha.dim() + 1 || grad_z.numel() != batch * log_alpha.numel())
      fail(op, "grad_z", "expected [batch, shape of log_alpha ", shape_text(log_alpha), "], got ", shape_text(grad_z));
    return batch;
  }
};

// The shape of z: [batch, shape of log_alpha].
inline std::vector<int64_t> batch_shape(const Tensor& log_alpha, int64_t batch) {
  std::vector<int64_t> shape{batch};
  for (int64_t d = 0; d < log_alpha.dim(); ++d) shape.push_back(log_alpha.size(d));
  return shape;
}

// The ops as the dispatcher calls them: arguments gathered and checked, then kRun. CPU and CUDA register them with
// theirs.
template <Tensor (*kRun)(const BatchGatesArgs&, int64_t batch)>
Tensor batch_gates_op(const Tensor& log_alpha, const Tensor& seed, int64_t batch, int64_t stream, int64_t first_index,
                      double temperature, double gamma, double zeta, double bound, double u_bound) {
  const char* op = "batch_gates";
  const std::optional<Tensor> some_seed(seed);
  const BatchGatesArgs args{
      log_alpha, {some_seed, stream, first_index}, {temperature, gamma, zeta, bound, u_bound, true}};
  args.check(op);
  if (batch < 0) fail(op, "batch", "expected at least 0, got ", batch);
  return kRun(args, batch);
}

template <Tensor (*kRun)(const BatchGatesArgs&, int64_t batch, const Tensor& grad_z)>
Tensor batch_gates_backward_op(const Tensor& grad_z, const Tensor& log_alpha, const Tensor& seed, int64_t stream,
                               int64_t first_index, double temperature, double gamma, double zeta, double bound,
                               double u_bound) {
  const char* op = "batch_gates_backward";
  const std::optional<Tensor> some_seed(seed);
  const BatchGatesArgs args{
      log_alpha, {some_seed, stream, first_index}, {temperature, gamma, zeta, bound, u_bound, true}};
  args.check(op);
  return kRun(args, args.checked_batch(op, grad_z), grad_z);
}

}  // namespace l0fast
