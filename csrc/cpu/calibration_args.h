// From checked arguments to the state that the passes work on.
#pragma once

#include "args/calibration.h"
#include "cpu/calibration_passes.h"

namespace l0fast::cpu {

template <typename T>
State<T> state_of(const CalibrationArgs& a, T* gate, const T* slopes) {
  return {a.log_weight.mutable_data_ptr<T>(),
          a.log_alpha.mutable_data_ptr<T>(),
          a.weight_exp_avg.mutable_data_ptr<T>(),
          a.weight_exp_avg_sq.mutable_data_ptr<T>(),
          a.alpha_exp_avg.mutable_data_ptr<T>(),
          a.alpha_exp_avg_sq.mutable_data_ptr<T>(),
          optional_data<T>(a.anchor),
          optional_data<T>(a.low),
          optional_data<T>(a.high),
          gate,
          slopes,
          a.seed->const_data_ptr<int64_t>(),
          a.first_index,
          a.step_params<T>()};
}

}  // namespace l0fast::cpu
