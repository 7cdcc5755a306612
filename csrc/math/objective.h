// The calibration losses (DESIGN 3): loss_j = omega_j rho(x_j), x_j = (y_hat_j - t_j) / scale_j.
#pragma once

#include "math/elementary.h"

namespace l0fast {

// Shared with Python by value: the op takes the integer, l0fast/constants.py names it and a test compares the two.
enum class Rho : int64_t { kSquare = 0, kEpsilonSquare = 1, kCappedAbsolute = 2 };

// What the totals are compared with.
struct Targets {
  const double *targets, *scales, *omega;  // [n_targets]
  const double* tolerances;                // [n_targets] or nullptr: 0
  Rho rho;
  double cap;
};

struct Residual {
  double loss;   // omega rho(x)
  double slope;  // r = omega rho'(x) / scale = d loss / d y_hat
};

// One target, in double: there are few targets and their totals were summed in double.
L0FAST_HD Residual residual(Rho rho, double total, double target, double scale, double omega, double tolerance,
                            double cap) {
  const double x = (total - target) / scale;
  const double size = x < 0 ? -x : x;
  const double sign = x < 0 ? -1.0 : 1.0;
  double value, derivative;
  switch (rho) {
    case Rho::kSquare:
      value = x * x;
      derivative = 2 * x;
      break;
    case Rho::kEpsilonSquare: {
      const double beyond = size - tolerance;
      // Written so that a NaN is kept, not taken for "within tolerance".
      const bool within = beyond <= 0;
      value = within ? 0.0 : beyond * beyond;
      derivative = within ? 0.0 : 2 * beyond * sign;
      break;
    }
    default: {
      const bool capped = size >= cap;
      value = capped ? cap : size;
      derivative = capped || size == 0 ? 0.0 : sign;
    }
  }
  return {omega * value, omega * derivative / scale};
}

// Target j of a problem.
L0FAST_HD Residual residual(const Targets& t, int64_t j, double total) {
  const double tolerance = t.tolerances != nullptr ? t.tolerances[j] : 0.0;
  return residual(t.rho, total, t.targets[j], t.scales[j], t.omega[j], tolerance, t.cap);
}

}  // namespace l0fast
