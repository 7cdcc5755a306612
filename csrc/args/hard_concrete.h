#pragma once

#include "args/gate.h"

namespace l0fast {

struct HardConcreteArgs {
  const Tensor& log_alpha;
  NoiseArgs noise;
  GateArgs gate;

  void check(const char* op) const {
    check_gate(op, gate, noise, log_alpha);
    check_floating(op, "log_alpha", log_alpha);
  }

  void check_gradient(const char* op, const Tensor& grad_z) const {
    check_dtype(op, "grad_z", grad_z, log_alpha.scalar_type());
    check_device(op, "grad_z", grad_z, log_alpha);
    check_contiguous(op, "grad_z", grad_z);
    if (grad_z.numel() != log_alpha.numel())
      fail(op, "grad_z", "expected shape ", shape_text(log_alpha), ", got ", shape_text(grad_z));
  }
};

// The ops as the dispatcher calls them: arguments gathered and checked, then kRun. CPU and CUDA register them with
// theirs.
template <Tensor (*kRun)(const HardConcreteArgs&)>
Tensor hard_concrete_op(const Tensor& log_alpha, const std::optional<Tensor>& seed, int64_t stream, int64_t first_index,
                        double temperature, double gamma, double zeta, double bound, double u_bound,
                        bool eval_temperature) {
  const HardConcreteArgs args{
      log_alpha, {seed, stream, first_index}, {temperature, gamma, zeta, bound, u_bound, eval_temperature}};
  args.check("hard_concrete");
  return kRun(args);
}

template <Tensor (*kRun)(const HardConcreteArgs&, const Tensor& grad_z)>
Tensor hard_concrete_backward_op(const Tensor& grad_z, const Tensor& log_alpha, const std::optional<Tensor>& seed,
                                 int64_t stream, int64_t first_index, double temperature, double gamma, double zeta,
                                 double bound, double u_bound, bool eval_temperature) {
  const char* op = "hard_concrete_backward";
  const HardConcreteArgs args{
      log_alpha, {seed, stream, first_index}, {temperature, gamma, zeta, bound, u_bound, eval_temperature}};
  args.check(op);
  args.check_gradient(op, grad_z);
  return kRun(args, grad_z);
}

}  // namespace l0fast
