#include "cost_models/lend.hpp"

#include <fmt/format.h>

#include <cmath>

namespace orrery {
namespace {

class Lender {
 public:
  Lender(std::string name, const GpuPeaks& from, const GpuPeaks& to)
      : name_(std::move(name)),
        matrix_(to.matrix / from.matrix),
        hbm_(to.hbm / from.hbm),
        cycles_(static_cast<double>(to.sms) / from.sms / matrix_) {}

  void lend(MeasuredKernels& kernels) const {
    assume(kernels.clock, constants_of_clock());
    kernels.clock.tensor_flops_per_cycle.value *= matrix_;
    kernels.clock.hbm_energy.value /= hbm_;
    for (AttentionModel& model : kernels.attention) {
      assume(model, constants_of_attention());
      assume(model.power, constants_of_power());
      for (Constant* cycles : {&model.list_start, &model.full_tile, &model.masked_tile}) cycles->value *= cycles_;
    }
    if (kernels.gemm) {
      assume(*kernels.gemm, constants_of_gemm());
      assume(kernels.gemm->power, constants_of_power());
      kernels.gemm->operand_rate.value /= cycles_;
      // Kernels of older GPUs reach the same share only of SMs that are alike.
      for (const ConstantOf<GemmModel>& constant : constants_of_gemm()) {
        if (constant.optional && std::abs(cycles_ - 1) > 0.05) *kernels.gemm.*constant.member = {};
      }
    }
    for (StreamModel& model : kernels.streams) {
      assume(model, constants_of_stream());
      for (Constant* rate : {&model.bandwidth, &model.cached_bandwidth}) rate->value *= hbm_;
    }
    if (kernels.nccl_beside) assume(*kernels.nccl_beside, constants_of_nccl_beside());
    kernels.bands.clear();
    kernels.runs.clear();
  }

  void assume(Constant& c) const {
    if (c.source.empty()) return;  // the lender does not know it
    c.rows = 0;
    c.provenance = Provenance::assumed;
    c.source = fmt::format("as {}, at the same fraction of the peak ({})", name_, c.source);
  }

 private:
  template <class Model, std::size_t n>
  void assume(Model& model, const std::array<ConstantOf<Model>, n>& list) const {
    for (const ConstantOf<Model>& constant : list) assume(model.*constant.member);
  }

  std::string name_;
  double matrix_, hbm_, cycles_;  // factors of what a cycle and a second do, and of the cycles of a tile
};

}  // namespace

Profile lend(Profile profile, const GpuPeaks& from, const GpuPeaks& to) {
  const Lender lender(profile.name, from, to);
  for (Constant* c : {&profile.attention_forward_efficiency, &profile.attention_backward_efficiency,
                      &profile.dense_efficiency, &profile.hbm_efficiency, &profile.link_efficiency,
                      &profile.kernel_overhead, &profile.tile_query, &profile.tile_key}) {
    lender.assume(*c);
  }
  if (profile.kernels) lender.lend(*profile.kernels);
  profile.is_lent = true;
  return profile;
}

}  // namespace orrery
