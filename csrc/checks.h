// Argument checks of the ops. They sit inside the kernels' launchers, so that no path through the dispatcher avoids
// them. Every message names the op, the argument, what was expected and what came.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace l0fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Parts>
[[noreturn]] void fail(const char* op, const char* argument, const Parts&... parts) {
  std::ostringstream text;
  text << "l0fast::" << op << ": " << argument << ": ";
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

inline std::string shape_text(const Tensor& t) {
  std::ostringstream text;
  text << "[";
  for (int64_t d = 0; d < t.dim(); ++d) text << (d ? ", " : "") << t.size(d);
  text << "]";
  return text.str();
}

inline const char* dtype_text(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::UInt16:
      return "uint16";
    default:
      return "another dtype";
  }
}

inline void check_contiguous(const char* op, const char* argument, const Tensor& t) {
  if (!t.is_contiguous()) fail(op, argument, "expected a contiguous tensor, got strides of shape ", shape_text(t));
}

inline void check_dtype(const char* op, const char* argument, const Tensor& t, ScalarType expected) {
  if (t.scalar_type() != expected)
    fail(op, argument, "expected ", dtype_text(expected), ", got ", dtype_text(t.scalar_type()));
}

inline void check_real(const char* op, const char* argument, const Tensor& t) {
  if (t.scalar_type() != ScalarType::Float && t.scalar_type() != ScalarType::Double)
    fail(op, argument, "expected float32 or float64, got ", dtype_text(t.scalar_type()));
  check_contiguous(op, argument, t);
}

// What a layer may hold: 16-bit floats too.
inline void check_floating(const char* op, const char* argument, const Tensor& t) {
  const ScalarType type = t.scalar_type();
  if (type != ScalarType::Float && type != ScalarType::Double && type != ScalarType::Half &&
      type != ScalarType::BFloat16)
    fail(op, argument, "expected float16, bfloat16, float32 or float64, got ", dtype_text(type));
  check_contiguous(op, argument, t);
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != b.size(d)) return false;
  return true;
}

// Contiguous, of the shape and dtype of another.
inline void check_same(const char* op, const char* argument, const Tensor& t, const Tensor& like) {
  check_dtype(op, argument, t, like.scalar_type());
  if (!same_shape(t, like)) fail(op, argument, "expected shape ", shape_text(like), ", got ", shape_text(t));
  check_contiguous(op, argument, t);
}

// A contiguous vector of the given length and dtype.
inline void check_vector(const char* op, const char* argument, const Tensor& t, int64_t length, ScalarType expected) {
  check_dtype(op, argument, t, expected);
  if (t.dim() != 1 || t.size(0) != length) fail(op, argument, "expected shape [", length, "], got ", shape_text(t));
  check_contiguous(op, argument, t);
}

inline std::string device_text(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  return (t.is_cuda() ? "cuda:" : "another device, number ") + std::to_string(t.get_device_index());
}

// On the device of another tensor: the dispatcher takes a CUDA kernel as soon as one argument lies on a GPU.
inline void check_device(const char* op, const char* argument, const Tensor& t, const Tensor& like) {
  if (t.is_cpu() != like.is_cpu() || t.is_cuda() != like.is_cuda() || t.get_device_index() != like.get_device_index())
    fail(op, argument, "expected it on ", device_text(like), ", got ", device_text(t));
}

inline void check_device(const char* op, const char* argument, const std::optional<Tensor>& t, const Tensor& like) {
  if (t.has_value()) check_device(op, argument, *t, like);
}

inline void check_seed(const char* op, const std::optional<Tensor>& seed) {
  if (!seed.has_value()) return;
  check_dtype(op, "seed", *seed, ScalarType::Long);
  if (seed->numel() != 1) fail(op, "seed", "expected one element, got shape ", shape_text(*seed));
}

inline void check_stream(const char* op, int64_t stream, int64_t first_index) {
  if (stream < 0 || stream > int64_t{0xffffffff}) fail(op, "stream", "expected 0 <= stream < 2^32, got ", stream);
  if (first_index < 0) fail(op, "first_index", "expected a non-negative index, got ", first_index);
}

inline void check_gate_scalars(const char* op, double temperature, double gamma, double zeta) {
  if (!(temperature > 0)) fail(op, "temperature", "expected a positive number, got ", temperature);
  if (!(gamma < 0)) fail(op, "gamma", "expected a negative number, got ", gamma);
  if (!(zeta > 1)) fail(op, "zeta", "expected a number above 1, got ", zeta);
}

// Shapes, dtypes and device of compressed columns; the contents (order, range) are checked where the pointers are read.
inline void check_columns(const char* op, const Tensor& indptr, const Tensor& rows, const Tensor& values,
                          int64_t n_records, const Tensor& like) {
  check_vector(op, "indptr", indptr, n_records + 1, ScalarType::Long);
  const int64_t nnz = values.dim() == 1 ? values.size(0) : -1;
  check_vector(op, "values", values, nnz, like.scalar_type());
  if (rows.scalar_type() != ScalarType::UInt16 && rows.scalar_type() != ScalarType::Int)
    fail(op, "rows", "expected uint16 or int32, got ", dtype_text(rows.scalar_type()));
  check_vector(op, "rows", rows, nnz, rows.scalar_type());
  check_device(op, "indptr", indptr, like);
  check_device(op, "rows", rows, like);
  check_device(op, "values", values, like);
}

}  // namespace l0fast
