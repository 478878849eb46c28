#include "cost_models/profile.hpp"

namespace orrery {

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
  return {&attention_forward_efficiency,
          &attention_backward_efficiency,
          &dense_efficiency,
          &hbm_efficiency,
          &link_efficiency,
          &kernel_overhead,
          &tile_query,
          &tile_key};
}

}  // namespace orrery
