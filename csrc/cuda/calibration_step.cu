// One epoch whose residuals come from outside: checks, memory and launches. The kernels are in calibration_passes.cuh.
#include "args/calibration_step.h"
#include "cuda/calibration_passes.cuh"

namespace l0fast::cuda {
namespace {

// The slopes as the gather takes them.
template <typename T>
__global__ void __launch_bounds__(kThreads) convert_slopes(const double* slopes, int64_t count, T* own) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; j < count; j += stride)
    own[j] = static_cast<T>(slopes[j]);
}

template <typename T, typename Row>
void run(const Device& device, DeviceMatrix<T, Row>& matrix, const StepArgs& args, double* totals, double* sums) {
  static_assert(kStepResults == kStepSums, "the step leaves its sums where the caller reads them");
  const int64_t n = matrix.columns().n_records, m = matrix.columns().n_targets;
  T* gate = args.drawn.mutable_data_ptr<T>();
  const Tensor own_slopes = torch::stable::new_empty(args.log_weight, {m});
  auto* slopes = static_cast<T*>(own_slopes.mutable_data_ptr());
  const Passes<T, Row> passes(device, matrix, args, gate, slopes, sums, 0,
                              AdamParams<T>::make(args.adam, args.epoch() + 1));
  fill_bytes(device, sums, 0, kStepSums * sizeof(double));
  if (args.slopes.has_value()) {
    launch(device, convert_slopes<T>, {elementwise_blocks(device, m), kThreads},
           args.slopes->template const_data_ptr<double>(), m, slopes);
    if (!args.gates) for_each<T>(device, n, OpenGates<T>{gate}, gate);
    passes.step(device);
  } else {
    passes.draw(device);
  }
  for_each_sum_to<T>(device, n, CountOpen<T>{gate}, args.log_weight, sums + 2, gate);
  passes.scatter(device);
  launch_read(device, matrix, passes.totals(), &passes.run()->cursor, totals);
}

TotalsAndSums run_step(const StepArgs& args) {
  const Device device(args.log_weight);
  Tensor totals = torch::stable::new_empty(args.log_weight, {args.n_targets}, ScalarType::Double);
  Tensor sums = torch::stable::new_empty(args.log_weight, {kStepSums}, ScalarType::Double);
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_matrix<T>(kStepOp, device, args.indptr, args.rows, args.values, args.n_targets, [&](auto& matrix) {
      run(device, matrix, args, totals.mutable_data_ptr<double>(), sums.mutable_data_ptr<double>());
    });
  });
  return {totals, sums};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("calibration_step_", TORCH_BOX(&calibration_step_op<&run_step>));
}

}  // namespace l0fast::cuda
