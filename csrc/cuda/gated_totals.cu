#include "args/gated_totals.h"
#include "cuda/gates.cuh"
#include "cuda/passes.cuh"

namespace l0fast::cuda {
namespace {

// Both gradients of a record, from its g.
template <typename T>
struct Gradients {
  struct Own {};
  const T *log_weight, *log_alpha;      // [n_records]
  const T* grad_penalty;                // [1]
  T *grad_log_weight, *grad_log_alpha;  // [n_records]
  GateParams<T> p;
  T inverse;
  Link link;
  bool gates;

  __device__ bool stopped() const { return false; }
  __device__ Own begin() const { return {}; }

  __device__ void record(int64_t i, T gate, T g, Own&) const {
    const T weight = linked(link, log_weight[i]), a = log_alpha[i], pulled = g * weight;
    grad_log_weight[i] = (link == Link::kExp ? pulled : g) * gate;
    const T slope = *grad_penalty * active_slope(active_probability(a, p), a, p);
    grad_log_alpha[i] = gates ? slope + pulled * gate_slope(gate, a, inverse, p) : slope;
  }

  __device__ void end(const Own&) const {}
};

template <typename T>
Tensor draw(const Device& device, const GatedTotalsArgs& args) {
  Tensor gates = torch::stable::empty_like(args.log_alpha);
  launch_gates(device, args.log_alpha.const_data_ptr<T>(), args.log_alpha.numel(), args.noise.first_index,
               args.noise.noise(), args.gate.params<T>(), args.gates, gates.mutable_data_ptr<T>());
  return gates;
}

Tensor new_cursor(const Device& device, const Tensor& like) {
  Tensor cursor = torch::stable::new_empty(like, {static_cast<int64_t>(sizeof(Cursor) / sizeof(int))}, ScalarType::Int);
  const Cursor start{0, 0, kLeastExponent, kLeastExponent};
  check_cuda(cudaMemcpyAsync(cursor.mutable_data_ptr(), &start, sizeof(start), cudaMemcpyHostToDevice, device.stream()),
             "cudaMemcpyAsync");
  return cursor;
}

template <typename T, typename Row>
void forward(const Device& device, DeviceMatrix<T, Row>& matrix, const GatedTotalsArgs& args, Tensor& totals) {
  const int64_t n = matrix.columns().n_records, m = matrix.columns().n_targets;
  const Tensor gates = draw<T>(device, args);
  Tensor place = new_cursor(device, args.log_weight);
  auto* cursor = static_cast<Cursor*>(place.mutable_data_ptr());
  Tensor sums = torch::stable::new_empty(args.log_weight, {m}, ScalarType::Long);
  auto* sum = static_cast<Fixed*>(sums.mutable_data_ptr());
  fill_bytes(device, sum, 0, m * sizeof(Fixed));
  const T* log_weight = args.log_weight.const_data_ptr<T>();
  launch_bound(device, log_weight, n, static_cast<Link>(args.link), &cursor->exponent);
  launch_scatter(device, matrix.plan(),
                 Scatter<T, Row>{matrix.columns(), matrix.long_columns(), log_weight, gates.const_data_ptr<T>(),
                                 static_cast<Link>(args.link), matrix.exponents(), matrix.bits(),
                                 matrix.plan().scatter.resident, sum, cursor});
  launch_read(device, matrix, sum, cursor, totals.mutable_data_ptr<T>());
}

template <typename T, typename Row>
void backward(const Device& device, DeviceMatrix<T, Row>& matrix, const GatedTotalsArgs& args,
              const Tensor& grad_totals, const Tensor& grad_penalty, Tensor& grad_log_weight, Tensor& grad_log_alpha) {
  const Tensor gates = draw<T>(device, args);
  const Tensor place = new_cursor(device, args.log_weight);
  const GateParams<T> p = args.gate.params<T>();
  const Gradients<T> finish{args.log_weight.const_data_ptr<T>(),
                            args.log_alpha.const_data_ptr<T>(),
                            grad_penalty.const_data_ptr<T>(),
                            grad_log_weight.mutable_data_ptr<T>(),
                            grad_log_alpha.mutable_data_ptr<T>(),
                            p,
                            inverse_temperature(p, args.noise.noise()),
                            static_cast<Link>(args.link),
                            args.gates};
  const Gather<T, Row> gather{matrix.columns(), matrix.long_columns(), gates.const_data_ptr<T>(),
                              grad_totals.const_data_ptr<T>(), matrix.plan().gather.resident};
  launch_gather(device, matrix.plan(), gather, static_cast<const Cursor*>(place.const_data_ptr()), finish);
}

TwoTensors run_forward(const GatedTotalsArgs& args, int64_t n_targets) {
  const Device device(args.log_weight);
  Tensor totals = torch::stable::new_empty(args.log_weight, {n_targets}, args.log_weight.scalar_type());
  Tensor penalty = torch::stable::new_empty(args.log_weight, {}, args.log_weight.scalar_type());
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_matrix<T>("gated_totals", device, args.indptr, args.rows, args.values, n_targets,
                   [&](auto& matrix) { forward(device, matrix, args, totals); });
    const T* a = args.log_alpha.const_data_ptr<T>();
    for_each_sum<T>(device, args.log_alpha.numel(), SumActive<T>{a, args.gate.params<T>()}, penalty, a);
  });
  return {totals, penalty};
}

TwoTensors run_backward(const GatedTotalsArgs& args, const Tensor& grad_totals, const Tensor& grad_penalty) {
  const Device device(args.log_weight);
  Tensor grad_log_weight = torch::stable::empty_like(args.log_weight);
  Tensor grad_log_alpha = torch::stable::empty_like(args.log_alpha);
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n_targets = grad_totals.size(0);
    with_matrix<T>("gated_totals_backward", device, args.indptr, args.rows, args.values, n_targets, [&](auto& matrix) {
      backward(device, matrix, args, grad_totals, grad_penalty, grad_log_weight, grad_log_alpha);
    });
  });
  return {grad_log_weight, grad_log_alpha};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("gated_totals", TORCH_BOX(&gated_totals_op<&run_forward>));
  m.impl("gated_totals_backward", TORCH_BOX(&gated_totals_backward_op<&run_backward>));
}

}  // namespace l0fast::cuda
