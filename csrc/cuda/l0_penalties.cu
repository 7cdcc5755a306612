#include "args/l0_penalties.h"
#include "cuda/penalty.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tensor_list.h"
#include "cuda/vector_access.cuh"

namespace l0fast::cuda {
namespace {

static_assert(sizeof(ListTable<double>) <= 4000, "kernel parameters are 4096 bytes at most, the other ones included");

// The numbers of a tensor's gates that the penalty needs.
template <typename T>
__device__ __forceinline__ GateParams<T> listed_params(T shift, T bound) {
  GateParams<T> p{};
  p.shift = shift;
  p.bound = bound;
  return p;
}

// Calls fn(width tag, i) for the packs and the rest of the elements of a block's chunk of its tensor.
template <typename T, typename F>
__device__ __forceinline__ void for_each_listed(const ListTable<T>& table, int tensor, const F& fn) {
  constexpr int kW = kWidth<T>;
  const int64_t begin = (static_cast<int32_t>(blockIdx.x) - table.first_block[tensor]) * table.chunk;
  const int64_t count = table.count[tensor], end = begin + table.chunk < count ? begin + table.chunk : count;
  int64_t done = begin;
  if ((reinterpret_cast<uintptr_t>(table.in[tensor]) | reinterpret_cast<uintptr_t>(table.out[tensor])) % 16 == 0) {
    done = end - (end - begin) % kW;
    for (int64_t i = begin + threadIdx.x * kW; i < done; i += kThreads * kW) fn(std::integral_constant<int, kW>{}, i);
  }
  for (int64_t i = done + threadIdx.x; i < end; i += kThreads) fn(std::integral_constant<int, 1>{}, i);
}

// first: the number of blocks in the launches before this one, whose sums lie before its own.
template <typename T>
__global__ void __launch_bounds__(kThreads) penalties_kernel(ListTable<T> table, T bound, Partials partials,
                                                             unsigned first, unsigned blocks, T* out /* [1] */) {
  const int tensor = table.tensor(static_cast<int32_t>(blockIdx.x));
  const T* in = table.in[tensor];
  const GateParams<T> p = listed_params(table.number[tensor], bound);
  double own = 0, total;
  for_each_listed(table, tensor, [&](auto width, int64_t i) {
    constexpr int kW = decltype(width)::value;
    T a[kW];
    load(in + i, a);
    own += sum_of_probabilities(a, p);
  });
  if (grid_sum(own, partials, &total, first, blocks)) *out = static_cast<T>(total);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) slopes_kernel(ListTable<T> table, T bound, const T* grad /* [1] */) {
  const int tensor = table.tensor(static_cast<int32_t>(blockIdx.x));
  const T* in = table.in[tensor];
  T* out = table.out[tensor];
  const GateParams<T> p = listed_params(table.number[tensor], bound);
  const T factor = *grad;
  for_each_listed(table, tensor, [&](auto width, int64_t i) {
    constexpr int kW = decltype(width)::value;
    T a[kW];
    load(in + i, a);
#pragma unroll
    for (int k = 0; k < kW; ++k) a[k] = factor * active_slope(active_probability(a[k], p), a[k], p);
    store(a, out + i);
  });
}

// gradients: as many as log_alphas, or none.
template <typename T>
ListPlan<T> plan_list(const std::vector<Tensor>& log_alphas, std::vector<Tensor>& gradients, const Shapes& shapes) {
  std::vector<int64_t> counts;
  for (const Tensor& x : log_alphas) counts.push_back(x.numel());
  ListPlan<T> plan(counts, int64_t{4} * kThreads * kWidth<T>);
  for (size_t k = 0; k < log_alphas.size(); ++k) {
    T* out = gradients.empty() ? nullptr : gradients[k].mutable_data_ptr<T>();
    plan.add(log_alphas[k].const_data_ptr<T>(), out, shapes.params<T>(k).shift, counts[k]);
  }
  return plan;
}

}  // namespace

Tensor l0_penalties(const std::vector<Tensor>& log_alphas, const std::vector<double>& temperatures,
                    const std::vector<double>& gammas, const std::vector<double>& zetas, double bound) {
  const Shapes shapes{temperatures, gammas, zetas, bound};
  check_l0_penalties("l0_penalties", log_alphas, shapes);
  const Device device(log_alphas[0]);
  Tensor penalty = torch::stable::new_empty(log_alphas[0], {});
  with_real(log_alphas[0], [&](auto zero) {
    using T = decltype(zero);
    T* out = penalty.mutable_data_ptr<T>();
    std::vector<Tensor> none;
    const ListPlan<T> plan = plan_list<T>(log_alphas, none, shapes);
    if (plan.blocks() == 0) {
      fill_bytes(device, out, 0, sizeof(T));
      return;
    }
    Tensor buffer = new_partials(device, penalty, plan.blocks());
    const Partials partials = Partials::over(buffer.mutable_data_ptr<double>(), plan.blocks());
    unsigned first = 0;
    for (const ListTable<T>& table : plan.tables()) {
      const Grid grid{table.blocks, kThreads};
      launch(device, penalties_kernel<T>, grid, table, bound, partials, first, static_cast<unsigned>(plan.blocks()),
             out);
      first += static_cast<unsigned>(table.blocks);
    }
  });
  return penalty;
}

std::vector<Tensor> l0_penalties_backward(const Tensor& grad, const std::vector<Tensor>& log_alphas,
                                          const std::vector<double>& temperatures, const std::vector<double>& gammas,
                                          const std::vector<double>& zetas, double bound) {
  const char* op = "l0_penalties_backward";
  const Shapes shapes{temperatures, gammas, zetas, bound};
  check_l0_penalties(op, log_alphas, shapes);
  check_l0_penalty_gradient(op, grad, log_alphas[0]);
  const Device device(grad);
  std::vector<Tensor> gradients;
  for (const Tensor& x : log_alphas) gradients.push_back(torch::stable::empty_like(x));
  with_real(grad, [&](auto zero) {
    using T = decltype(zero);
    const T* factor = grad.const_data_ptr<T>();
    const ListPlan<T> plan = plan_list<T>(log_alphas, gradients, shapes);
    for (const ListTable<T>& table : plan.tables())
      launch(device, slopes_kernel<T>, {table.blocks, kThreads}, table, bound, factor);
  });
  return gradients;
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, L0FAST_CUDA_KEY, m) {
  m.impl("l0_penalties", TORCH_BOX(&l0_penalties));
  m.impl("l0_penalties_backward", TORCH_BOX(&l0_penalties_backward));
}

}  // namespace l0fast::cuda
