// Whole epochs of calibration: checks, memory and launches. The kernels are in calibration_engine.cuh.
#include "cuda/calibration_engine.cuh"
#include "cuda/epoch_graph.cuh"

namespace l0fast::cuda {
namespace {

// The memory of a run and its launches.
template <typename T, typename Row>
class Engine {
 public:
  Engine(const Device& device, DeviceMatrix<T, Row>& matrix, const EpochArgs& args, double* metrics)
      : matrix_(matrix),
        args_(args),
        metrics_(metrics),
        target_blocks_(std::clamp<int64_t>(divided_up(args.n_targets(), kThreads), 1, device.multiprocessors())),
        gates_(torch::stable::empty_like(args.log_alpha)),
        slopes_(torch::stable::new_empty(args.log_weight, {args.n_targets()})),
        sums_(torch::stable::new_empty(args.log_weight, {2 * target_blocks_}, ScalarType::Double)),
        passes_(device, matrix, args, static_cast<T*>(gates_.mutable_data_ptr()), slopes(), metrics + 1, kMetrics, {}) {
    passes_.draw(device);
  }

  // All launches of an epoch. They take nothing from the host but what is the same in every epoch.
  void epoch(const Device& device) const {
    passes_.scatter(device);
    launch(device, residuals_kernel<T>, {target_blocks_, kThreads}, residuals());
    passes_.step(device);
  }

 private:
  Residuals<T> residuals() const {
    const Bias<T> bias{optional_mutable_data<T>(args_.bias), optional_mutable_data<T>(args_.bias_exp_avg),
                       optional_mutable_data<T>(args_.bias_exp_avg_sq)};
    auto* sums = static_cast<double*>(sums_.mutable_data_ptr());
    return {args_.problem(),
            passes_.totals(),
            matrix_.exponents(),
            matrix_.bits(),
            args_.n_targets(),
            args_.first_epoch(),
            slopes(),
            bias,
            args_.adam,
            sums,
            sums + target_blocks_,
            metrics_,
            passes_.run()};
  }

  T* slopes() const { return static_cast<T*>(slopes_.mutable_data_ptr()); }

  DeviceMatrix<T, Row>& matrix_;
  const EpochArgs& args_;
  double* metrics_;
  const int64_t target_blocks_;
  Tensor gates_, slopes_, sums_;
  const Passes<T, Row> passes_;
};

template <typename T, typename Row>
void run(const Device& device, DeviceMatrix<T, Row>& matrix, const EpochArgs& args, double* metrics) {
  const Engine<T, Row> engine(device, matrix, args, metrics);
  if (args.epochs == 1) return engine.epoch(device);
  const EpochGraph graph(device, [&](const Device& captured) { engine.epoch(captured); });
  for (int64_t k = 0; k < args.epochs; ++k) graph.launch(device);
  check_cuda(cudaStreamSynchronize(device.stream()), "calibration_epochs_");  // the graph goes when this returns
}

Tensor run_epochs(const EpochArgs& args) {
  const Device device(args.log_weight);
  Tensor metrics = torch::stable::new_empty(args.log_weight, {args.epochs, kMetrics}, ScalarType::Double);
  if (args.epochs == 0) return metrics;
  auto* out = metrics.mutable_data_ptr<double>();
  // All bits set is a NaN: what the epochs after a stop leave.
  fill_bytes(device, out, 0xff, args.epochs * kMetrics * sizeof(double));
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_matrix<T>(kEpochsOp, device, args.indptr, args.rows, args.values, args.n_targets(),
                   [&](auto& matrix) { run(device, matrix, args, out); });
  });
  return metrics;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("calibration_epochs_", TORCH_BOX(&calibration_epochs_op<&run_epochs>));
}

}  // namespace l0fast::cuda
