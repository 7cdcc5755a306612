// A matrix in compressed columns on the device: its contents validated, its rows scaled, its long columns listed.
#pragma once

#include <limits>

#include "cuda/calibration_plan.h"
#include "cuda/reduce.cuh"
#include "math/fixed_point.h"

namespace l0fast::cuda {

template <typename T, typename Row>
struct Columns {
  const int64_t* indptr;  // [n_records + 1]
  const Row* rows;        // [nnz]
  const T* values;        // [nnz]
  int64_t n_targets, n_records, nnz;
};

// The long columns, cut into chunks: those of one column lie next to each other.
struct LongColumns {
  int64_t chunks;
  int64_t* column;   // [chunks]
  int64_t* begin;    // [chunks] first nonzero
  int64_t* slot;     // [n_records] a long column's first chunk; read for long columns only
  double* gathered;  // [chunks] what the backward pass found
};

// What is wrong with a matrix, and the number of its chunks.
struct Inspection {
  int64_t bad_ends, bad_offsets, bad_rows, bad_values, chunks;
};

template <typename T, typename Row>
__global__ void __launch_bounds__(kThreads) inspect_columns(Columns<T, Row> m, Inspection* found /* [1] */) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < m.n_records; i += stride) {
    const int64_t begin = m.indptr[i], end = m.indptr[i + 1];
    if ((i == 0 && begin != 0) || (i + 1 == m.n_records && end != m.nnz)) found->bad_ends = 1;
    if (begin > end) found->bad_offsets = 1;
    const int64_t chunks = long_chunks(end - begin);
    if (chunks > 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(&found->chunks), static_cast<unsigned long long>(chunks));
  }
}

// Rows in range, values finite, and for each row an exponent above all its values.
template <typename T, typename Row>
__global__ void __launch_bounds__(kThreads)
    inspect_rows(Columns<T, Row> m, int* exponents /* [n_targets] */, Inspection* found /* [1] */) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < m.nnz; k += stride) {
    const int64_t row = static_cast<int64_t>(m.rows[k]);
    const T value = m.values[k];
    if (!(value - value == T(0))) found->bad_values = 1;
    if (row < 0 || row >= m.n_targets) {
      found->bad_rows = 1;
      continue;
    }
    const int exponent = row_exponent<T>(exponent_above(value));
    // A stale read only costs an atomic that changes nothing.
    if (exponent > *static_cast<volatile int*>(exponents + row)) atomicMax(exponents + row, exponent);
  }
}

template <typename T, typename Row>
__global__ void __launch_bounds__(kThreads)
    list_long_columns(Columns<T, Row> m, LongColumns l, unsigned long long* taken /* [1] */) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < m.n_records; i += stride) {
    const int64_t begin = m.indptr[i], chunks = long_chunks(m.indptr[i + 1] - begin);
    if (chunks == 0) continue;
    const int64_t slot = static_cast<int64_t>(atomicAdd(taken, static_cast<unsigned long long>(chunks)));
    l.slot[i] = slot;
    for (int64_t c = 0; c < chunks; ++c) {
      l.column[slot + c] = i;
      l.begin[slot + c] = begin + c * kLongColumn;
    }
  }
}

// A validated matrix and what the passes need beside it; the memory lives as long as this does.
template <typename T, typename Row>
class DeviceMatrix {
 public:
  DeviceMatrix(const char* op, const Device& device, const Tensor& indptr, const Tensor& rows, const Tensor& values,
               int64_t n_targets)
      : columns_{indptr.const_data_ptr<int64_t>(),
                 static_cast<const Row*>(rows.const_data_ptr()),
                 values.const_data_ptr<T>(),
                 n_targets,
                 indptr.size(0) - 1,
                 values.size(0)},
        plan_(plan_calibration(n_targets, columns_.n_records, columns_.nnz, sizeof(T), limits(device))),
        exponents_(torch::stable::new_empty(values, {n_targets}, ScalarType::Int)) {
    refuse_capture(op, device);
    fill_bytes(device, exponents_.mutable_data_ptr(), 0x80, n_targets * sizeof(int));
    Tensor report = torch::stable::new_empty(values, {sizeof(Inspection) / sizeof(int64_t)}, ScalarType::Long);
    auto* on_device = static_cast<Inspection*>(report.mutable_data_ptr());
    fill_bytes(device, on_device, 0, sizeof(Inspection));
    launch(device, inspect_columns<T, Row>, {elementwise(device, columns_.n_records), kThreads}, columns_, on_device);
    launch(device, inspect_rows<T, Row>, {elementwise(device, columns_.nnz), kThreads}, columns_, exponents(),
           on_device);
    Inspection found{};
    check_cuda(cudaMemcpyAsync(&found, on_device, sizeof(found), cudaMemcpyDeviceToHost, device.stream()), op);
    check_cuda(cudaStreamSynchronize(device.stream()), op);
    const bool none = columns_.n_records == 0 && columns_.nnz != 0;
    if (found.bad_ends || none) fail(op, "indptr", "expected to run from 0 to ", columns_.nnz, ", got other ends");
    if (found.bad_offsets) fail(op, "indptr", "expected non-decreasing offsets, got a decrease");
    if (found.bad_rows) fail(op, "rows", "expected 0 <= row < ", n_targets, ", got a row outside");
    if (found.bad_values) fail(op, "values", "expected finite numbers, got NaN or an infinity");
    if (found.chunks > 0) list_long(device, found.chunks);
  }

  const Columns<T, Row>& columns() const { return columns_; }
  const CalibrationPlan& plan() const { return plan_; }
  const LongColumns& long_columns() const { return long_; }
  int* exponents() { return static_cast<int*>(exponents_.mutable_data_ptr()); }  // [n_targets]
  int bits() const { return contribution_bits<T>(columns_.n_records); }

 private:
  static int64_t elementwise(const Device& device, int64_t count) {
    return std::min((count + kThreads - 1) / kThreads, 8 * device.multiprocessors());
  }

  static DeviceLimits limits(const Device& device) {
    return {device.multiprocessors(), device.attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
            device.attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor)};
  }

  // The contents must be known on the host before the first pass.
  static void refuse_capture(const char* op, const Device& device) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(device.stream(), &status), op);
    if (status != cudaStreamCaptureStatusNone)
      fail(op, "indptr",
           "expected a stream that is not being captured (the matrix is checked on the host), got one that is");
  }

  void list_long(const Device& device, int64_t chunks) {
    const auto integers = [&](int64_t count) {
      return torch::stable::new_empty(exponents_, {count}, ScalarType::Long);
    };
    memory_ = {integers(chunks), integers(chunks), integers(columns_.n_records), integers(1),
               torch::stable::new_empty(exponents_, {chunks}, ScalarType::Double)};
    const auto at = [&](int k) { return static_cast<int64_t*>(memory_[k].mutable_data_ptr()); };
    long_ = {chunks, at(0), at(1), at(2), static_cast<double*>(memory_[4].mutable_data_ptr())};
    fill_bytes(device, at(3), 0, sizeof(int64_t));
    launch(device, list_long_columns<T, Row>, {elementwise(device, columns_.n_records), kThreads}, columns_, long_,
           reinterpret_cast<unsigned long long*>(at(3)));
  }

  const Columns<T, Row> columns_;
  const CalibrationPlan plan_;
  Tensor exponents_;
  LongColumns long_{};
  std::vector<Tensor> memory_;
};

// Calls fn(DeviceMatrix<T, Row>&) with the row type of the tensor.
template <typename T, typename F>
void with_matrix(const char* op, const Device& device, const Tensor& indptr, const Tensor& rows, const Tensor& values,
                 int64_t n_targets, const F& fn) {
  if (rows.scalar_type() == ScalarType::UInt16) {
    DeviceMatrix<T, uint16_t> m(op, device, indptr, rows, values, n_targets);
    fn(m);
  } else {
    DeviceMatrix<T, int32_t> m(op, device, indptr, rows, values, n_targets);
    fn(m);
  }
}

}  // namespace l0fast::cuda
