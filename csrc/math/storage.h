// Element types in memory, and the type in which a kernel computes with them: float for the 16-bit types, else the
// same.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

namespace l0fast {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

template <typename T>
using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace l0fast
