#include <torch/csrc/stable/library.h>

#include <vector>

#include "args/gated_totals.h"
#include "cpu/columns_args.h"
#include "cpu/gate_args.h"

namespace l0fast::cpu {
namespace {

template <typename T>
struct Parameters {
  const T *log_weight, *log_alpha;  // [n_records]
  Noise noise;
  int64_t first_index;
  GateParams<T> gate;
  Link link;
  bool gates;  // false: z = 1
};

template <typename T>
void block_gates(const Parameters<T>& a, int64_t i, int64_t length, T* gate) {
  if (a.gates) {
    gates_range(a.log_alpha + i, length, a.first_index + i, a.noise, a.gate, gate);
  } else {
    std::fill(gate, gate + length, T(1));
  }
}

template <typename T, typename Row>
void forward(const Parameters<T>& a, const Columns<T, Row>& m, T* totals, T* penalty) {
  const std::vector<int64_t> bounds = split_columns(m.indptr, m.n_records, m.n_targets);
  const int64_t parts = static_cast<int64_t>(bounds.size()) - 1;
  PartTotals sums(parts, m.n_targets);
  std::vector<double> probability(parts, 0.0);
  for_each_part(parts, [&](int64_t part) {
    double* own = sums.cleared(part);
    T gate[kBlock], weight[kBlock];
    OpenList open;
    for (int64_t i = bounds[part]; i < bounds[part + 1]; i += kBlock) {
      const int64_t length = std::min(kBlock, bounds[part + 1] - i);
      block_gates(a, i, length, gate);
      weights_range(a.log_weight + i, gate, length, a.link, weight);
      list_open(gate, length, open);
      scatter_columns(m, i, open, weight, own);
      probability[part] += penalty_range(a.log_alpha + i, length, a.gate);
    }
  });
  for_each_part(target_chunks(m.n_targets), [&](int64_t chunk) {
    const int64_t begin = chunk * kTargetChunk, end = std::min(m.n_targets, begin + kTargetChunk);
    double total[kTargetChunk];
    sums.reduce(begin, end, total);
    for (int64_t j = begin; j < end; ++j) totals[j] = static_cast<T>(total[j - begin]);
  });
  double sum = 0;
  for (const double part : probability) sum += part;
  *penalty = static_cast<T>(sum);
}

template <typename T, typename Row>
void backward(const Parameters<T>& a, const Columns<T, Row>& m, const T* grad_totals, T grad_penalty,
              T* grad_log_weight, T* grad_log_alpha) {
  const std::vector<int64_t> bounds = split_columns(m.indptr, m.n_records, m.n_targets);
  const T inverse = inverse_temperature(a.gate, a.noise);
  for_each_part(static_cast<int64_t>(bounds.size()) - 1, [&](int64_t part) {
    T gate[kBlock], weight[kBlock], gradient[kBlock], slope[kBlock];
    OpenList open;
    for (int64_t i = bounds[part]; i < bounds[part + 1]; i += kBlock) {
      const int64_t length = std::min(kBlock, bounds[part + 1] - i);
      block_gates(a, i, length, gate);
      weights_range(a.log_weight + i, static_cast<const T*>(nullptr), length, a.link, weight);
      list_open(gate, length, open);
      gather_columns(m, i, open, grad_totals, gradient);
      penalty_slope_range(a.log_alpha + i, grad_penalty, length, a.gate, grad_log_alpha + i);
      for (int64_t k = 0; k < length; ++k) {
        const T pulled = gradient[k] * weight[k];  // g dw/dz; under exp also g dw/dlog_weight but for the gate
        grad_log_weight[i + k] = (a.link == Link::kExp ? pulled : gradient[k]) * gate[k];
        gradient[k] = pulled;
      }
      if (!a.gates) continue;
      gate_slope_range(gradient, gate, a.log_alpha + i, inverse, length, a.gate, slope);
      for (int64_t k = 0; k < length; ++k) grad_log_alpha[i + k] += slope[k];
    }
  });
}

template <typename T>
Parameters<T> parameters(const GatedTotalsArgs& args) {
  return {args.log_weight.const_data_ptr<T>(),
          args.log_alpha.const_data_ptr<T>(),
          args.noise.noise(),
          args.noise.first_index,
          args.gate.params<T>(),
          static_cast<Link>(args.link),
          args.gates};
}

TwoTensors run_forward(const GatedTotalsArgs& args, int64_t n_targets) {
  Tensor totals = torch::stable::empty({n_targets}, args.log_weight.scalar_type());
  Tensor penalty = torch::stable::empty({}, args.log_weight.scalar_type());
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    with_columns<T>("gated_totals", args.indptr, args.rows, args.values, n_targets, [&](const auto& m) {
      forward(parameters<T>(args), m, totals.mutable_data_ptr<T>(), penalty.mutable_data_ptr<T>());
    });
  });
  return {totals, penalty};
}

TwoTensors run_backward(const GatedTotalsArgs& args, const Tensor& grad_totals, const Tensor& grad_penalty) {
  Tensor grad_log_weight = torch::stable::empty_like(args.log_weight);
  Tensor grad_log_alpha = torch::stable::empty_like(args.log_alpha);
  with_real(args.log_weight, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n_targets = grad_totals.size(0);
    with_columns<T>("gated_totals_backward", args.indptr, args.rows, args.values, n_targets, [&](const auto& m) {
      backward(parameters<T>(args), m, grad_totals.const_data_ptr<T>(), *grad_penalty.const_data_ptr<T>(),
               grad_log_weight.mutable_data_ptr<T>(), grad_log_alpha.mutable_data_ptr<T>());
    });
  });
  return {grad_log_weight, grad_log_alpha};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("gated_totals", TORCH_BOX(&gated_totals_op<&run_forward>));
  m.impl("gated_totals_backward", TORCH_BOX(&gated_totals_backward_op<&run_backward>));
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, CompositeExplicitAutograd, m) {
  m.impl("count_parts", TORCH_BOX(&count_parts));
}

}  // namespace l0fast::cpu
