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
        totals_(torch::stable::new_empty(args.log_weight, {args.n_targets()}, ScalarType::Long)),
        sums_(torch::stable::new_empty(args.log_weight, {2 * target_blocks_ + 3 * matrix.plan().gather.blocks},
                                       ScalarType::Double)),
        run_(torch::stable::new_empty(args.log_weight, {divided_up(sizeof(Run<T>), sizeof(int64_t))},
                                      ScalarType::Long)) {
    start(device);
  }

  // All launches of an epoch. They take nothing from the host but what is the same in every epoch.
  void epoch(const Device& device) const {
    launch_scatter(device, matrix_.plan(), scatter());
    launch(device, residuals_kernel<T>, {target_blocks_, kThreads}, residuals());
    launch_gather(device, matrix_.plan(), gather(), &run()->cursor, step());
  }

 private:
  // Gates and bound of the first epoch.
  void start(const Device& device) {
    const Run<T> fresh{{0, 0, kLeastExponent, kLeastExponent}, 0, 0, 0, {}};
    check_cuda(cudaMemcpyAsync(run(), &fresh, sizeof(fresh), cudaMemcpyHostToDevice, device.stream()),
               "cudaMemcpyAsync");
    fill_bytes(device, totals(), 0, args_.n_targets() * sizeof(Fixed));
    launch_bound(device, args_.log_weight.template const_data_ptr<T>(), args_.n_records(), link(),
                 &run()->cursor.exponent);
    launch_gates(device, args_.log_alpha.template const_data_ptr<T>(), args_.n_records(), args_.first_index,
                 Noise{seed(), static_cast<uint32_t>(args_.first_epoch)}, args_.gate.template params<T>(), args_.gates,
                 gates());
  }

  Scatter<T, Row> scatter() const {
    return {matrix_.columns(),
            matrix_.long_columns(),
            args_.log_weight.template const_data_ptr<T>(),
            gates(),
            link(),
            matrix_.exponents(),
            matrix_.bits(),
            matrix_.plan().scatter.resident,
            totals(),
            &run()->cursor};
  }

  Residuals<T> residuals() const {
    const Bias<T> bias{optional_mutable_data<T>(args_.bias), optional_mutable_data<T>(args_.bias_exp_avg),
                       optional_mutable_data<T>(args_.bias_exp_avg_sq)};
    return {args_.problem(),
            totals(),
            matrix_.exponents(),
            matrix_.bits(),
            args_.n_targets(),
            args_.first_epoch,
            slopes(),
            bias,
            {args_.lr, args_.beta1, args_.beta2, args_.epsilon},
            sums(),
            sums() + target_blocks_,
            metrics_,
            run()};
  }

  Gather<T, Row> gather() const {
    return {matrix_.columns(), matrix_.long_columns(), gates(), slopes(), matrix_.plan().gather.resident};
  }

  Step<T> step() const {
    const StepParams<T> params{args_.gate.template params<T>(),     {},     static_cast<T>(args_.lambda_l0),
                               static_cast<T>(2 * args_.lambda_l2), link(), args_.gates};
    return {args_.log_weight.template mutable_data_ptr<T>(),
            args_.log_alpha.template mutable_data_ptr<T>(),
            args_.weight_exp_avg.template mutable_data_ptr<T>(),
            args_.weight_exp_avg_sq.template mutable_data_ptr<T>(),
            args_.alpha_exp_avg.template mutable_data_ptr<T>(),
            args_.alpha_exp_avg_sq.template mutable_data_ptr<T>(),
            optional_data<T>(args_.anchor),
            gates(),
            seed(),
            args_.first_epoch,
            args_.first_index,
            params,
            sums() + 2 * target_blocks_,
            metrics_,
            run()};
  }

  Link link() const { return static_cast<Link>(args_.link); }
  const int64_t* seed() const { return args_.seed->template const_data_ptr<int64_t>(); }
  Run<T>* run() const { return static_cast<Run<T>*>(run_.mutable_data_ptr()); }
  T* gates() const { return static_cast<T*>(gates_.mutable_data_ptr()); }
  T* slopes() const { return static_cast<T*>(slopes_.mutable_data_ptr()); }
  Fixed* totals() const { return static_cast<Fixed*>(totals_.mutable_data_ptr()); }
  double* sums() const { return static_cast<double*>(sums_.mutable_data_ptr()); }

  DeviceMatrix<T, Row>& matrix_;
  const EpochArgs& args_;
  double* metrics_;
  const int64_t target_blocks_;
  Tensor gates_, slopes_, totals_, sums_, run_;
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
