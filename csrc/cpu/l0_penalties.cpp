#include <torch/csrc/stable/library.h>

#include <vector>

#include "args/l0_penalties.h"
#include "cpu/gate_args.h"

namespace l0fast::cpu {
namespace {

struct Range {
  int64_t tensor, first, length;
};

// Gates that are worth another thread: torch's own grain size. Waking one costs as much as thousands of gates.
constexpr int64_t kPartGates = 32768;

// The blocks of all tensors, in order, tied into parts of at least kPartGates gates (the last may have fewer). It
// depends on the sizes alone: the same sum on any number of threads.
class Parts {
 public:
  explicit Parts(const std::vector<Tensor>& tensors) {
    int64_t gates = kPartGates;  // of the part so far: the first range opens one
    for (size_t k = 0; k < tensors.size(); ++k) {
      const int64_t count = tensors[k].numel();
      for (int64_t i = 0; i < count; i += kBlock) {
        if (gates >= kPartGates) {
          begin_.push_back(ranges_.size());
          gates = 0;
        }
        ranges_.push_back({static_cast<int64_t>(k), i, std::min(kBlock, count - i)});
        gates += ranges_.back().length;
      }
    }
    begin_.push_back(ranges_.size());
  }

  int64_t count() const { return static_cast<int64_t>(begin_.size()) - 1; }

  // Calls fn(part, range) for every range, on torch's threads; those of one part in order on one thread.
  template <typename F>
  void for_each(const F& fn) const {
    for_each_part(count(), [&](int64_t part) {
      for (size_t r = begin_[part]; r < begin_[part + 1]; ++r) fn(part, ranges_[r]);
    });
  }

 private:
  std::vector<Range> ranges_;
  std::vector<size_t> begin_;  // of each part in ranges_, and their end
};

template <typename T>
std::vector<GateParams<T>> all_params(const Shapes& shapes) {
  std::vector<GateParams<T>> all;
  for (size_t k = 0; k < shapes.temperatures.size(); ++k) all.push_back(shapes.params<T>(k));
  return all;
}

}  // namespace

Tensor l0_penalties(const std::vector<Tensor>& log_alphas, const std::vector<double>& temperatures,
                    const std::vector<double>& gammas, const std::vector<double>& zetas, double bound) {
  const Shapes shapes{temperatures, gammas, zetas, bound};
  check_l0_penalties("l0_penalties", log_alphas, shapes);
  Tensor penalty = torch::stable::empty({}, log_alphas[0].scalar_type());
  with_real(log_alphas[0], [&](auto zero) {
    using T = decltype(zero);
    const auto params = all_params<T>(shapes);
    std::vector<const T*> pointers;
    for (const Tensor& x : log_alphas) pointers.push_back(x.const_data_ptr<T>());
    const Parts parts(log_alphas);
    std::vector<double> sums(parts.count());
    parts.for_each([&](int64_t part, const Range& r) {
      sums[part] += penalty_range(pointers[r.tensor] + r.first, r.length, params[r.tensor]);
    });
    double sum = 0;
    for (const double part : sums) sum += part;
    *penalty.mutable_data_ptr<T>() = static_cast<T>(sum);
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
  std::vector<Tensor> gradients;
  for (const Tensor& x : log_alphas) gradients.push_back(torch::stable::empty_like(x));
  with_real(grad, [&](auto zero) {
    using T = decltype(zero);
    const auto params = all_params<T>(shapes);
    const T factor = *grad.const_data_ptr<T>();
    std::vector<const T*> pointers;
    std::vector<T*> out;
    for (size_t k = 0; k < log_alphas.size(); ++k) {
      pointers.push_back(log_alphas[k].const_data_ptr<T>());
      out.push_back(gradients[k].mutable_data_ptr<T>());
    }
    Parts(log_alphas).for_each([&](int64_t, const Range& r) {
      penalty_slope_range(pointers[r.tensor] + r.first, factor, r.length, params[r.tensor], out[r.tensor] + r.first);
    });
  });
  return gradients;
}

STABLE_TORCH_LIBRARY_IMPL(l0fast, CPU, m) {
  m.impl("l0_penalties", TORCH_BOX(&l0_penalties));
  m.impl("l0_penalties_backward", TORCH_BOX(&l0_penalties_backward));
}

}  // namespace l0fast::cpu
