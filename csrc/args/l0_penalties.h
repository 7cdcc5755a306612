#pragma once

#include <string>
#include <vector>

#include "args/l0_penalty.h"

namespace l0fast {

// The numbers of each gate tensor's shape.
struct Shapes {
  const std::vector<double>&temperatures, &gammas, &zetas;
  double bound;

  template <typename T>
  GateParams<T> params(size_t k) const {
    return penalty_params<T>(temperatures[k], gammas[k], zetas[k], bound);
  }
};

inline void check_l0_penalties(const char* op, const std::vector<Tensor>& log_alphas, const Shapes& shapes) {
  const size_t count = log_alphas.size();
  if (count == 0) fail(op, "log_alphas", "expected at least one tensor, got none");
  const auto check_count = [&](const char* argument, const std::vector<double>& numbers) {
    if (numbers.size() != count)
      fail(op, argument, "expected ", count, " numbers, one for each tensor, got ", numbers.size());
  };
  check_count("temperatures", shapes.temperatures);
  check_count("gammas", shapes.gammas);
  check_count("zetas", shapes.zetas);
  for (size_t k = 0; k < count; ++k) {
    const std::string name = "log_alphas[" + std::to_string(k) + "]";
    check_real(op, name.c_str(), log_alphas[k]);
    check_dtype(op, name.c_str(), log_alphas[k], log_alphas[0].scalar_type());
    check_device(op, name.c_str(), log_alphas[k], log_alphas[0]);
    check_gate_scalars(op, shapes.temperatures[k], shapes.gammas[k], shapes.zetas[k]);
  }
}

}  // namespace l0fast
