// l0fast._host: work on NumPy arrays. Nothing here needs torch.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "host/fingerprint.h"
#include "host/packing.h"

namespace py = pybind11;

namespace l0fast::host {
namespace {

template <typename X>
using Vector = py::array_t<X, py::array::c_style>;
using OptionalArray = std::optional<py::array>;

template <typename X>
bool holds(const py::array& array) {
  return py::isinstance<Vector<X>>(array);  // exact dtype in native byte order, contiguous
}

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(std::string("pack_columns: ") + message);
}

Format format_named(const std::string& name) {
  if (name == "csr") return Format::kRows;
  if (name == "csc") return Format::kColumns;
  require(name == "coo", "format: expected csr, csc or coo");
  return Format::kCoordinates;
}

// Lengths and dtypes: what would be read out of bounds otherwise. Contents are checked where they are read.
template <typename Index>
const Index* index_data(const OptionalArray& array, const char* message, bool wanted, int64_t nnz) {
  require(array.has_value() == wanted, message);
  if (!wanted) return nullptr;
  require(holds<Index>(*array) && array->ndim() == 1 && array->size() >= nnz, message);
  return static_cast<const Index*>(array->data());
}

template <typename Index>
Pattern<Index> pattern_of(Format format, const std::optional<Vector<int64_t>>& indptr, const OptionalArray& rows,
                          const OptionalArray& cols, int64_t n_targets, int64_t n_records, int64_t n_values) {
  Pattern<Index> m{format, nullptr, nullptr, nullptr, n_targets, n_records, n_values};
  require(indptr.has_value() == (format != Format::kCoordinates), "indptr: expected with csr and csc only");
  if (indptr) {
    const int64_t length = format == Format::kRows ? n_targets : n_records;
    require(indptr->ndim() == 1 && indptr->size() == length + 1,
            "indptr: expected one entry more than rows or columns");
    m.indptr = indptr->data();
    m.nnz = m.indptr[length];
    require(m.indptr[0] == 0 && m.nnz >= 0 && m.nnz <= n_values,
            "indptr: expected to run from 0 to at most the number of values");
  }
  m.rows = index_data<Index>(rows, "rows: expected an index vector as long as the values, with csc and coo only",
                             format != Format::kRows, m.nnz);
  m.cols = index_data<Index>(cols, "cols: expected an index vector as long as the values, with csr and coo only",
                             format != Format::kColumns, m.nnz);
  return m;
}

template <typename Row, typename T, typename Index, typename Value>
py::tuple pack_as(const Pattern<Index>& m, const Value* values, int64_t threads) {
  py::array_t<int64_t> indptr(m.n_records + 1);
  py::array_t<Row> rows(m.nnz);
  py::array_t<T> packed_values(m.nnz);
  const Packed<Row, T> out{indptr.mutable_data(), rows.mutable_data(), packed_values.mutable_data()};
  int64_t nnz;
  {
    py::gil_scoped_release release;
    nnz = pack_columns(m, values, out, threads);
  }
  if (nnz < m.nnz) {
    rows.resize({nnz});
    packed_values.resize({nnz});
  }
  return py::make_tuple(std::move(indptr), std::move(rows), std::move(packed_values));
}

template <typename Index, typename Value>
py::tuple pack_to(const Pattern<Index>& m, const Value* values, const std::string& value_dtype, int64_t threads) {
  require(value_dtype == "float32" || value_dtype == "float64", "value_dtype: expected float32 or float64");
  const bool narrow = m.n_targets <= 65536, single = value_dtype == "float32";
  if (narrow && single) return pack_as<uint16_t, float>(m, values, threads);
  if (narrow) return pack_as<uint16_t, double>(m, values, threads);
  if (single) return pack_as<int32_t, float>(m, values, threads);
  return pack_as<int32_t, double>(m, values, threads);
}

py::tuple pack(const std::string& format, const std::optional<Vector<int64_t>>& indptr, const OptionalArray& rows,
               const OptionalArray& cols, const py::array& values, int64_t n_targets, int64_t n_records,
               const std::string& value_dtype, int64_t threads) {
  require(n_targets > 0 && n_targets <= INT32_MAX, "n_targets: expected 1 to 2147483647");
  require(n_records > 0, "n_records: expected a positive number");
  require(threads > 0, "threads: expected a positive number");
  require(values.ndim() == 1 && (holds<float>(values) || holds<double>(values)),
          "values: expected a vector of float32 or float64");
  const auto with_index = [&](auto index) {
    const auto m =
        pattern_of<decltype(index)>(format_named(format), indptr, rows, cols, n_targets, n_records, values.size());
    if (holds<float>(values)) return pack_to(m, static_cast<const float*>(values.data()), value_dtype, threads);
    return pack_to(m, static_cast<const double*>(values.data()), value_dtype, threads);
  };
  require(rows || cols, "rows, cols: expected at least one of them");
  if (holds<int32_t>(rows ? *rows : *cols)) return with_index(int32_t{});
  return with_index(int64_t{});
}

py::bytes fingerprint_of(const py::array& array, int64_t threads) {
  if (!(array.flags() & py::array::c_style))
    throw std::invalid_argument("fingerprint: array: expected a contiguous one");
  if (threads < 1) throw std::invalid_argument("fingerprint: threads: expected a positive number");
  const void* data = array.data();
  const int64_t bytes = array.nbytes();  // asks Python: not without the interpreter lock
  Fingerprint hash;
  {
    py::gil_scoped_release release;
    hash = fingerprint(data, bytes, threads);
  }
  char text[sizeof hash];
  std::memcpy(text, &hash, sizeof hash);
  return py::bytes(text, sizeof text);
}

}  // namespace
}  // namespace l0fast::host

PYBIND11_MODULE(_host, m) {
  m.doc() = "Work on NumPy arrays: packing a sparse matrix into compressed columns, fingerprints.";
  m.def("pack_columns", &l0fast::host::pack, py::arg("format"), py::arg("indptr"), py::arg("rows"), py::arg("cols"),
        py::arg("values"), py::arg("n_targets"), py::arg("n_records"), py::arg("value_dtype"), py::arg("threads"),
        "(indptr int64, rows uint16 or int32, values) of the compressed columns of a csr, csc or coo matrix.");
  m.def("fingerprint", &l0fast::host::fingerprint_of, py::arg("array"), py::arg("threads") = 1,
        "128-bit hash of the bytes of an array; not cryptographic, the same on any number of threads.");
}
