// Where the entries of a sparse matrix lie, in the caller's own arrays: their validation and the count per column.
#pragma once

#include <cstdint>

namespace l0fast::host {

enum class Format { kRows, kColumns, kCoordinates };  // scipy's csr, csc, coo

template <typename Index>
struct Pattern {
  Format format;
  const int64_t* indptr;  // kRows [n_targets + 1], kColumns [n_records + 1]
  const Index* rows;      // kColumns, kCoordinates [nnz]
  const Index* cols;      // kRows, kCoordinates [nnz]
  int64_t n_targets, n_records, nnz;
};

// Throws std::invalid_argument unless the index pointer never decreases and every index is in range. Everything that
// follows reads and writes through these indices unchecked.
template <typename Index>
void check_pattern(const Pattern<Index>& m, int64_t threads);

// counts[i] = entries of column i, repeated ones and zeros included. Returns whether within every row the columns
// never decrease (kRows only, else false): such rows can be read from a column on without a search.
template <typename Index>
bool count_columns(const Pattern<Index>& m, int64_t* counts /* [n_records] */, int64_t threads);

}  // namespace l0fast::host
