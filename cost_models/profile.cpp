#include "cost_models/profile.hpp"

namespace orrery {
namespace {

template <class Model, std::size_t n>
void add(const Model& model, const std::array<ConstantOf<Model>, n>& list, std::vector<const Constant*>& all) {
  for (const ConstantOf<Model>& constant : list) {
    const Constant& c = model.*constant.member;
    if (!constant.optional || !c.name.empty()) all.push_back(&c);
  }
}

}  // namespace

std::string_view name_of(Provenance provenance) {
  switch (provenance) {
    case Provenance::measured:
      return "measured";
    case Provenance::fitted:
      return "fitted";
    case Provenance::datasheet:
      return "datasheet";
    case Provenance::assumed:
      return "assumed";
  }
  return "";
}

std::vector<const Constant*> Profile::constants() const {
  std::vector<const Constant*> all = {&attention_forward_efficiency,
                                      &attention_backward_efficiency,
                                      &dense_efficiency,
                                      &hbm_efficiency,
                                      &link_efficiency,
                                      &kernel_overhead,
                                      &tile_query,
                                      &tile_key};
  if (!kernels) return all;
  add(kernels->clock, constants_of_clock(), all);
  for (const AttentionModel& model : kernels->attention) {
    add(model, constants_of_attention(), all);
    add(model.power, constants_of_power(), all);
  }
  if (kernels->gemm) {
    add(*kernels->gemm, constants_of_gemm(), all);
    add(kernels->gemm->power, constants_of_power(), all);
  }
  for (const StreamModel& model : kernels->streams) add(model, constants_of_stream(), all);
  if (kernels->nccl_beside) add(*kernels->nccl_beside, constants_of_nccl_beside(), all);
  return all;
}

}  // namespace orrery
