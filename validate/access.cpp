#include "validate/access.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "validate/functional.hpp"

namespace orrery {

void Access::begin(const std::string& who) {
  for (const Region& region : reads) {
    if (region.tensor->use() != region.use) {
      throw FunctionalError(fmt::format("{} reads {}, which holds another block", who, region.name));
    }
    region.for_each([&](Index token, int head) {
      if (region.tensor->writing(token, head) != 0) {
        throw FunctionalError(fmt::format("{} reads {} token {} while it is being written", who, region.name, token));
      }
      versions.push_back(region.tensor->version(token, head));
    });
  }
  for (const Region& region : writes) {
    if (region.tensor->use() != region.use) {
      if (region.tensor->is_being_written()) {
        throw FunctionalError(fmt::format("{} reuses {} while another op writes it", who, region.name));
      }
      region.tensor->reuse(region.use);
    }
    region.for_each([&](Index token, int head) {
      if (region.tensor->writing(token, head) != 0) {
        throw FunctionalError(
            fmt::format("{} overwrites {} token {} while another op writes it", who, region.name, token));
      }
      region.tensor->writing(token, head) = 1;
      ++region.tensor->version(token, head);
    });
  }
}

void Access::end(const std::string& who) {
  std::size_t i = 0;
  for (const Region& region : writes)
    region.for_each([&](Index token, int head) { region.tensor->writing(token, head) = 0; });
  for (const Region& region : reads) {
    region.for_each([&](Index token, int head) {
      const bool rewritten =
          std::any_of(writes.begin(), writes.end(), [&](const Region& w) { return w.tensor == region.tensor; });
      if (!rewritten && region.tensor->version(token, head) != versions[i]) {
        throw FunctionalError(
            fmt::format("{} read {} token {}, which was overwritten meanwhile", who, region.name, token));
      }
      ++i;
    });
  }
}
}  // namespace orrery
