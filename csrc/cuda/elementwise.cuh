// Loops over elements. A functor has two members:
//   template <int kW> __device__ void operator()(int64_t i) const;    elements i .. i + kW - 1, 16 bytes at a time
//   template <int kW> __device__ double sum(int64_t i) const;         the same, and what it adds to a sum
#pragma once

#include "cuda/reduce.cuh"
#include "cuda/vector_access.cuh"

namespace l0fast::cuda {

// Calls fn(width tag, i) for every pack and for each element of the rest.
template <int kW, typename F>
__device__ __forceinline__ void for_each_pack(int64_t count, const F& fn) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * kW;
  const int64_t whole = count - count % kW;
  for (int64_t i = thread * kW; i < whole; i += stride) fn(std::integral_constant<int, kW>{}, i);
  if (kW > 1 && thread < count - whole) fn(std::integral_constant<int, 1>{}, whole + thread);
}

template <int kW, typename F>
__global__ void __launch_bounds__(kThreads) each_kernel(int64_t count, F f) {
  for_each_pack<kW>(count, [&](auto width, int64_t i) { f.template operator()<decltype(width)::value>(i); });
}

template <int kW, typename C, typename F>
__global__ void __launch_bounds__(kThreads) sum_kernel(int64_t count, F f, Partials partials, C* out /* [1] */) {
  double own = 0, total;
  for_each_pack<kW>(count, [&](auto width, int64_t i) { own += f.template sum<decltype(width)::value>(i); });
  if (grid_sum(own, partials, &total, 0, gridDim.x)) *out = static_cast<C>(total);
}

// Blocks for `packs` packs: at most as many as are resident at once, eight to a multiprocessor.
inline int64_t elementwise_blocks(const Device& device, int64_t packs) {
  return std::min((packs + kThreads - 1) / kThreads, 8 * device.multiprocessors());
}

// f over elements 0 .. count - 1 of arrays of T; 16 bytes at a time where all the pointers allow it.
template <typename T, typename F, typename... Pointers>
void for_each(const Device& device, int64_t count, const F& f, const Pointers*... pointers) {
  if (count == 0) return;
  if (aligned16(pointers...)) {
    const int64_t blocks = elementwise_blocks(device, (count + kWidth<T> - 1) / kWidth<T>);
    launch(device, each_kernel<kWidth<T>, F>, {blocks, kThreads}, count, f);
  } else {
    launch(device, each_kernel<1, F>, {elementwise_blocks(device, count), kThreads}, count, f);
  }
}

// The same, and the sum of what f.sum returns -> total, on the device of `like`. An empty sum is 0.
template <typename T, typename F, typename C, typename... Pointers>
void for_each_sum_to(const Device& device, int64_t count, const F& f, const Tensor& like, C* total,
                     const Pointers*... pointers) {
  if (count == 0) {
    fill_bytes(device, total, 0, sizeof(C));
    return;
  }
  const bool wide = aligned16(pointers...);
  const int64_t blocks = elementwise_blocks(device, wide ? (count + kWidth<T> - 1) / kWidth<T> : count);
  Tensor buffer = new_partials(device, like, blocks);
  const Partials partials = Partials::over(buffer.mutable_data_ptr<double>(), blocks);
  if (wide) {
    launch(device, sum_kernel<kWidth<T>, C, F>, {blocks, kThreads}, count, f, partials, total);
  } else {
    launch(device, sum_kernel<1, C, F>, {blocks, kThreads}, count, f, partials, total);
  }
}

template <typename T, typename F, typename... Pointers>
void for_each_sum(const Device& device, int64_t count, const F& f, Tensor& out, const Pointers*... pointers) {
  for_each_sum_to<T>(device, count, f, out, out.mutable_data_ptr<Arithmetic<T>>(), pointers...);
}

}  // namespace l0fast::cuda
