#include "scenarios/used_constants.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace orrery {
namespace {

/// Attention and matrix products were measured in 16-bit types; in others they run at the profile's efficiencies.
bool in_measured_type(const Scenario& s) {
  return s.profile.kernels && bytes_per_element(s.dtype) == 2;
}

std::vector<Phase> phases_of(const Scenario& s) {
  return s.backward ? std::vector{Phase::forward, Phase::backward} : std::vector{Phase::forward};
}

bool has_dense_work(const Scenario& s) {
  return s.whole_layers || s.whole_step;
}

class UsedConstants {
 public:
  explicit UsedConstants(const Scenario& s) : profile_(s.profile) {
    const bool measured = in_measured_type(s);
    const MeasuredKernels* kernels = measured ? &*profile_.kernels : nullptr;
    bool roofline = false;
    for (const Phase phase : phases_of(s)) {
      // Also F of the condition c >= F/B.
      use(phase == Phase::forward ? profile_.attention_forward_efficiency : profile_.attention_backward_efficiency);
      const auto next = measured ? kernels->attention_around(phase, static_cast<double>(s.model.head_dim))
                                 : MeasuredKernels::Neighbours();
      roofline = roofline || next.below == nullptr;
      for (const AttentionModel* model : {next.below, next.above}) {
        if (model != nullptr) use(*model, constants_of_attention()), use(model->power, constants_of_power());
      }
    }
    if (has_dense_work(s)) {
      const GemmModel* model = measured && kernels->gemm ? &*kernels->gemm : nullptr;
      roofline = roofline || model == nullptr;
      if (model == nullptr) use(profile_.dense_efficiency);
      if (model != nullptr) use(*model, constants_of_gemm()), use(model->power, constants_of_power());
    }
    use_streams(s);
    if (roofline || !profile_.kernels) use(profile_.hbm_efficiency), use(profile_.kernel_overhead);
    if (s.ranks() > 1) use(profile_.link_efficiency);
    use(profile_.tile_query), use(profile_.tile_key);
    if (measured) use(profile_.kernels->clock, constants_of_clock());
    if (profile_.kernels && profile_.kernels->nccl_beside && s.ranks() > 1 &&
        s.implementation.transport == Transport::nccl) {
      use_beside_nccl(*profile_.kernels->nccl_beside, s);
    }
  }

  std::vector<const Constant*> in_order() const {
    std::vector<const Constant*> all = profile_.constants();
    std::erase_if(all, [&](const Constant* constant) { return !used_.contains(constant); });
    return all;
  }

 private:
  void use(const Constant& constant) { used_.insert(&constant); }
  template <class Model, class List>
  void use(const Model& model, const List& list) {
    for (const auto& constant : list) use(model.*constant.member);
  }

  void use_beside_nccl(const NcclBeside& beside, const Scenario& s) {
    use(beside.attention_forward), use(beside.streams);
    if (s.backward) use(beside.attention_backward);
    if (has_dense_work(s)) use(beside.matrix_products);
  }

  /// Sums, merges and what a library launches around a step; a whole step has all kinds of streams.
  void use_streams(const Scenario& s) {
    if (!profile_.kernels) return;
    const Implementation& i = s.implementation;
    std::set<std::string> kernels;
    if (i.merge == Merge::kernel) kernels.insert("merge_block");
    if (s.backward && i.gradient_sum == Merge::kernel) kernels.insert("accumulate");
    for (const Phase phase : phases_of(s)) {
      for (const StepKernel& kernel : i.step_kernels) {
        if (kernel.runs(phase, s.has_gates())) kernels.insert(kernel.kernel);
      }
    }
    if (in_measured_type(s)) kernels.insert("copy_kernel");  // the traffic around attention kernels
    if (s.whole_step) {
      for (const StreamModel& stream : profile_.kernels->streams) kernels.insert(stream.kernel);
    }
    for (const std::string& kernel : kernels) {
      const StreamModel* stream = profile_.kernels->stream_of(kernel);
      if (stream == nullptr) stream = profile_.kernels->stream_of("other");
      if (stream != nullptr) use(*stream, constants_of_stream());
    }
  }

  const Profile& profile_;
  std::set<const Constant*> used_;
};

}  // namespace

std::vector<const Constant*> used_constants(const Scenario& scenario) {
  return UsedConstants(scenario).in_order();
}

std::vector<Extrapolation> extrapolations(const Scenario& s) {
  if (!s.profile.kernels) return {};
  if (!in_measured_type(s))
    return {{s.profile.name + ".dtype", s.dtype, "kernels were measured in 16-bit types; efficiencies in their place"}};
  std::set<double> measured;
  for (const AttentionModel& model : s.profile.kernels->attention) measured.insert(model.head_dim);
  const auto head_dim = static_cast<double>(s.model.head_dim);
  if (measured.empty() || measured.contains(head_dim)) return {};
  return {{s.profile.name + ".attention.head_dim", fmt::format("{}", head_dim),
           fmt::format("attention was measured with {}; the nearest, in proportion", fmt::join(measured, ", "))}};
}

}  // namespace orrery
