// Every op of l0fast on one screen. CPU kernels are registered in cpu/, CUDA kernels in a library of their own.
//
// temperature, gamma, zeta, bound, u_bound are the scalars of the gate (l0fast/constants.py holds their defaults);
// without a seed the gate is deterministic. stream and first_index place the noise: DESIGN 4.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(l0fast, m) {
  // Gates. z, and its gradient; sum of p, and its gradient.
  m.def(
      "hard_concrete(Tensor log_alpha, Tensor? seed, int stream, int first_index, float temperature, float gamma, "
      "float zeta, float bound, float u_bound, bool eval_temperature) -> Tensor");
  m.def(
      "hard_concrete_backward(Tensor grad_z, Tensor log_alpha, Tensor? seed, int stream, int first_index, "
      "float temperature, float gamma, float zeta, float bound, float u_bound, bool eval_temperature) -> Tensor");
  m.def("l0_penalty(Tensor log_alpha, float temperature, float gamma, float zeta, float bound) -> Tensor");
  m.def(
      "l0_penalty_backward(Tensor grad, Tensor log_alpha, float temperature, float gamma, float zeta, float bound) "
      "-> Tensor");
  // The sum of p over many gate tensors, each of its own shape, and all gradients.
  m.def(
      "l0_penalties(Tensor[] log_alphas, float[] temperatures, float[] gammas, float[] zetas, float bound) -> Tensor");
  m.def(
      "l0_penalties_backward(Tensor grad, Tensor[] log_alphas, float[] temperatures, float[] gammas, float[] zetas, "
      "float bound) -> Tensor[]");

  // z [batch, shape of log_alpha]: a draw for each example, at first_index + b gates + i.
  m.def(
      "batch_gates(Tensor log_alpha, Tensor seed, int batch, int stream, int first_index, float temperature, "
      "float gamma, float zeta, float bound, float u_bound) -> Tensor");
  m.def(
      "batch_gates_backward(Tensor grad_z, Tensor log_alpha, Tensor seed, int stream, int first_index, "
      "float temperature, float gamma, float zeta, float bound, float u_bound) -> Tensor");

  // v = weight z, and sum p (0 unless with_penalty). dim: the dimension of weight that has a gate per slice; without
  // it, a gate per element. Backward draws the gates again, or divides v by weight where v is given.
  m.def(
      "gated_weight(Tensor weight, Tensor log_alpha, Tensor? seed, int? dim, bool with_penalty, int stream, "
      "int first_index, float temperature, float gamma, float zeta, float bound, float u_bound, "
      "bool eval_temperature) -> (Tensor v, Tensor penalty)");
  m.def(
      "gated_weight_backward(Tensor grad_v, Tensor? grad_penalty, Tensor weight, Tensor log_alpha, Tensor? v, "
      "Tensor? seed, int? dim, int stream, int first_index, float temperature, float gamma, float zeta, float bound, "
      "float u_bound, bool eval_temperature) -> (Tensor grad_weight, Tensor grad_log_alpha)");
  // The same for a gate per element in float32 or float64, without a byte of new memory: grad_v becomes grad_weight and
  // v becomes grad_log_alpha.
  m.def(
      "gated_weight_backward_(Tensor(a!) grad_v, Tensor(b!) v, Tensor? grad_penalty, Tensor weight, Tensor log_alpha, "
      "Tensor? seed, int stream, int first_index, float temperature, float gamma, float zeta, float bound, "
      "float u_bound, bool eval_temperature) -> ()");

  // M w with w = exp(log_weight) z, M in compressed columns (indptr, rows, values) of n_targets rows. link 1:
  // log_weight is the weight itself, of either sign, and w = log_weight z.
  m.def(
      "gated_totals(Tensor log_weight, Tensor log_alpha, Tensor indptr, Tensor rows, Tensor values, int n_targets, "
      "Tensor? seed, int stream, int first_index, int link, bool gates, float temperature, float gamma, float zeta, "
      "float bound, float u_bound, bool eval_temperature) -> (Tensor totals, Tensor penalty)");
  m.def(
      "gated_totals_backward(Tensor grad_totals, Tensor grad_penalty, Tensor log_weight, Tensor log_alpha, "
      "Tensor indptr, Tensor rows, Tensor values, Tensor? seed, int stream, int first_index, int link, bool gates, "
      "float temperature, float gamma, float zeta, float bound, float u_bound, bool eval_temperature) "
      "-> (Tensor grad_log_weight, Tensor grad_log_alpha)");

  // Whole epochs: gates, totals, residuals, gradients, Adam. Returns [epochs, 4] float64: data loss, sum p, sum of
  // squared weights over anchors (0 where lambda_l2 is 0), open gates. An epoch whose data loss is not finite ends
  // the run before its step; its row holds that loss and the rows after it NaN. bias, if given with its moments, is one
  // number added to every total: trained too, without gate, noise or penalty. After Adam's step log_weight is shrunk by
  // lambda_l1 (under link 1 alone) and held to [low, high], where they are given.
  m.def(
      "calibration_epochs_(Tensor(a!) log_weight, Tensor(b!) log_alpha, Tensor(c!) weight_exp_avg, "
      "Tensor(d!) weight_exp_avg_sq, Tensor(e!) alpha_exp_avg, Tensor(f!) alpha_exp_avg_sq, "
      "Tensor(g!)? bias, Tensor(h!)? bias_exp_avg, Tensor(i!)? bias_exp_avg_sq, "
      "Tensor indptr, Tensor rows, Tensor values, "
      "Tensor targets, Tensor scales, Tensor omega, Tensor? tolerances, Tensor? anchor, Tensor? low, Tensor? high, "
      "int rho, float cap, "
      "Tensor seed, int first_epoch, int epochs, int first_index, int link, bool gates, float temperature, "
      "float gamma, float zeta, float bound, float u_bound, float lambda_l0, float lambda_l2, float lambda_l1, "
      "float lr, float beta1, float beta2, float epsilon) -> Tensor");

  // One epoch whose residuals come from outside: slopes = dloss/dtotals [n_targets] float64 of the gates in `gate` give
  // the step of that epoch; then the gates of the next one are drawn into `gate`. Without slopes no step: the gates of
  // the epoch itself are drawn. Returns the totals of the new draw, float64, and [3] float64: sum p and sum of squares
  // before the step (0 without one), open gates of the new draw.
  m.def(
      "calibration_step_(Tensor(a!) log_weight, Tensor(b!) log_alpha, Tensor(c!) weight_exp_avg, "
      "Tensor(d!) weight_exp_avg_sq, Tensor(e!) alpha_exp_avg, Tensor(f!) alpha_exp_avg_sq, Tensor(g!) gate, "
      "Tensor indptr, Tensor rows, Tensor values, int n_targets, Tensor? slopes, Tensor? anchor, Tensor? low, "
      "Tensor? high, Tensor seed, int epoch, int first_index, int link, bool gates, float temperature, float gamma, "
      "float zeta, float bound, float u_bound, float lambda_l0, float lambda_l2, float lambda_l1, float lr, "
      "float beta1, float beta2, float epsilon) -> (Tensor totals, Tensor sums)");

  // As empty_like, with huge pages asked for where it is large: a fresh buffer's page faults cost more than filling it.
  m.def("empty_large(Tensor like) -> Tensor");

  // 0 baseline, 3 x86-64-v3 (AVX2), 4 x86-64-v4 (AVX-512): what the CPU kernels run on here.
  m.def("instruction_set() -> int");

  // How many private copies of the totals the CPU kernels keep for a matrix, whatever the number of threads.
  m.def("count_parts(int nnz, int n_records, int n_targets) -> int");
}
