// The passes of an epoch over the records, and the memory they share (mirrors cpu/calibration_passes.h).
//
// What changes from epoch to epoch (the count, Adam's corrections, the bound of the weights) lives in a Run on the
// device, moved on by the last block of a launch: every epoch is the same list of launches, which a graph repeats.
#pragma once

#include "args/calibration.h"
#include "cuda/passes.cuh"

namespace l0fast::cuda {

template <typename T>
struct Run {
  Cursor cursor;
  unsigned residuals_finished, step_finished;  // blocks
  int64_t done;                                // epochs of this call
  AdamParams<T> adam;                          // of the epoch at hand
};

// What gather_kernel does with a record: L0, L2, Adam, the bound of the next weights and the next gate.
template <typename T>
struct Step {
  // What a thread carries from record to record.
  struct Own {
    uint32_t next_stream;
    double probability = 0, squares = 0, open = 0;
    int exponent = kLeastExponent;
  };

  T *log_weight, *log_alpha, *weight_first, *weight_second, *alpha_first, *alpha_second;  // [n_records]
  const T *anchor, *low, *high;                                                           // [n_records] or nullptr
  T* gates;                                                                               // [n_records]
  const int64_t* seed;
  int64_t first_epoch, first_index;
  StepParams<T> params;  // but for adam, which run has
  double* sums;          // [3, blocks]
  double* results;       // [3] of the first epoch: sum p, sum of squares, open gates; `stride` further on the next
  int64_t stride;
  Run<T>* run;

  __device__ bool stopped() const { return run->cursor.stopped != 0; }

  __device__ Own begin() const { return {static_cast<uint32_t>(first_epoch + run->done + 1)}; }

  __device__ void record(int64_t i, T gate, T g, Own& own) const {
    if (params.link == Link::kExp) {
      step<Link::kExp>(i, gate, g, own);
    } else {
      step<Link::kIdentity>(i, gate, g, own);
    }
  }

  template <Link kLink>
  __device__ __forceinline__ void step(int64_t i, T gate, T g, Own& own) const {
    const T weight = l0fast::linked<kLink>(log_weight[i]), a = log_alpha[i];
    const T ratio = anchor == nullptr ? weight : weight / anchor[i];
    const T ratio_slope = kLink == Link::kExp ? ratio : anchor == nullptr ? T(1) : T(1) / anchor[i];
    const T probability = active_probability(a, params.gate);
    const T inverse = params.gates ? params.gate.inverse_temperature : T(0);
    const T grad_weight = weight_gradient<kLink>(g, weight, gate, ratio, ratio_slope, params);
    const T grad_alpha = alpha_gradient(g, weight, gate, a, probability, inverse, params);
    const T new_weight =
        restricted(adam_step(log_weight[i], grad_weight, weight_first[i], weight_second[i], run->adam), i);
    const T new_alpha = adam_step(a, grad_alpha, alpha_first[i], alpha_second[i], run->adam);
    log_weight[i] = new_weight;
    log_alpha[i] = new_alpha;
    own.exponent = larger(own.exponent, exponent_above(l0fast::linked<kLink>(new_weight)));
    own.probability += static_cast<double>(probability);
    if (params.twice_lambda_l2 != T(0)) own.squares += static_cast<double>(ratio) * static_cast<double>(ratio);
    own.open += gate != T(0) ? 1.0 : 0.0;
    if (!params.gates) return;
    const T alpha[1] = {new_alpha};
    T next[1];
    draw_gates(alpha, first_index + i, Noise{seed, own.next_stream}, params.gate, next);
    gates[i] = next[0];
  }

  __device__ __forceinline__ T restricted(T weight, int64_t i) const {
    if (params.shrinkage != T(0)) weight = shrunk(weight, weight_second[i], params.shrinkage, run->adam);
    if (low != nullptr) weight = at_least(weight, low[i]);
    if (high != nullptr) weight = at_most(weight, high[i]);
    return weight;
  }

  __device__ void end(const Own& own) const {
    const int most = warp_max(own.exponent);
    if (threadIdx.x % kWarp == 0) atomicMax(&run->cursor.next_exponent, most);
    const double mine[3] = {own.probability, own.squares, own.open};
    for (int k = 0; k < 3; ++k) {
      const double sum = block_sum(mine[k]);
      if (threadIdx.x == 0) sums[k * gridDim.x + blockIdx.x] = sum;
    }
    if (!arrive_last(&run->step_finished, gridDim.x) || threadIdx.x != 0) return;
    const volatile double* all = sums;
    for (unsigned k = 0; k < 3; ++k) {
      double sum = 0;
      for (unsigned b = 0; b < gridDim.x; ++b) sum += all[k * gridDim.x + b];
      results[run->done * stride + k] = sum;
    }
    run->cursor.exponent = run->cursor.next_exponent;
    run->cursor.next_exponent = kLeastExponent;
    run->done += 1;
  }
};

constexpr int64_t kStepResults = 3;

// The launches of a call and their memory.
template <typename T, typename Row>
class Passes {
 public:
  // gates [n_records] and slopes [n_targets] are the caller's, and so are the results (see Step). adam: of the first
  // step, where nobody on the device makes it.
  Passes(const Device& device, DeviceMatrix<T, Row>& matrix, const CalibrationArgs& args, T* gates, T* slopes,
         double* results, int64_t stride, const AdamParams<T>& adam)
      : matrix_(matrix),
        args_(args),
        gates_(gates),
        slopes_(slopes),
        results_(results),
        stride_(stride),
        totals_(torch::stable::new_empty(args.log_weight, {n_targets()}, ScalarType::Long)),
        sums_(torch::stable::new_empty(args.log_weight, {kStepResults * matrix.plan().gather.blocks},
                                       ScalarType::Double)),
        run_(torch::stable::new_empty(args.log_weight, {divided_up(sizeof(Run<T>), sizeof(int64_t))},
                                      ScalarType::Long)) {
    const Run<T> fresh{{0, 0, kLeastExponent, kLeastExponent}, 0, 0, 0, adam};
    check_cuda(cudaMemcpyAsync(run(), &fresh, sizeof(fresh), cudaMemcpyHostToDevice, device.stream()),
               "cudaMemcpyAsync");
    fill_bytes(device, totals(), 0, n_targets() * sizeof(Fixed));
  }

  // Gates and bound of the epoch that a call begins with.
  void draw(const Device& device) const {
    launch_bound(device, args_.log_weight.const_data_ptr<T>(), n_records(), link(), &run()->cursor.exponent);
    launch_gates(device, args_.log_alpha.const_data_ptr<T>(), n_records(), args_.first_index,
                 Noise{seed(), static_cast<uint32_t>(args_.stream)}, args_.gate.params<T>(), args_.gates, gates_);
  }

  // Adds up the totals of the gates at hand, which must be 0 before.
  void scatter(const Device& device) const {
    launch_scatter(device, matrix_.plan(),
                   Scatter<T, Row>{matrix_.columns(), matrix_.long_columns(), args_.log_weight.const_data_ptr<T>(),
                                   gates_, link(), matrix_.exponents(), matrix_.bits(), matrix_.plan().scatter.resident,
                                   totals(), &run()->cursor});
  }

  // The step of the epoch at hand; leaves the gates and the bound of the next one.
  void step(const Device& device) const {
    const Gather<T, Row> gather{matrix_.columns(), matrix_.long_columns(), gates_, slopes_,
                                matrix_.plan().gather.resident};
    launch_gather(device, matrix_.plan(), gather, &run()->cursor, finish());
  }

  Run<T>* run() const { return static_cast<Run<T>*>(run_.mutable_data_ptr()); }
  Fixed* totals() const { return static_cast<Fixed*>(totals_.mutable_data_ptr()); }

 private:
  Step<T> finish() const {
    return {args_.log_weight.mutable_data_ptr<T>(),
            args_.log_alpha.mutable_data_ptr<T>(),
            args_.weight_exp_avg.mutable_data_ptr<T>(),
            args_.weight_exp_avg_sq.mutable_data_ptr<T>(),
            args_.alpha_exp_avg.mutable_data_ptr<T>(),
            args_.alpha_exp_avg_sq.mutable_data_ptr<T>(),
            optional_data<T>(args_.anchor),
            optional_data<T>(args_.low),
            optional_data<T>(args_.high),
            gates_,
            seed(),
            args_.stream,
            args_.first_index,
            args_.step_params<T>(),
            static_cast<double*>(sums_.mutable_data_ptr()),
            results_,
            stride_,
            run()};
  }

  int64_t n_records() const { return matrix_.columns().n_records; }
  int64_t n_targets() const { return matrix_.columns().n_targets; }
  Link link() const { return static_cast<Link>(args_.link); }
  const int64_t* seed() const { return args_.seed->const_data_ptr<int64_t>(); }

  DeviceMatrix<T, Row>& matrix_;
  const CalibrationArgs& args_;
  T *gates_, *slopes_;
  double* results_;
  int64_t stride_;
  Tensor totals_, sums_, run_;
};

}  // namespace l0fast::cuda
