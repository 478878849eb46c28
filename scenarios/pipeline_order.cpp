#include "scenarios/pipeline_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace orrery {

std::vector<PipelineSlot> pipeline_order(int stages, int stage, int chunks, int microbatches, bool backward) {
  if (chunks > 1 && microbatches % stages != 0) {
    throw std::invalid_argument(
        fmt::format("{} microbatches are not a multiple of {} pipeline stages (interleaved stages take turns), use a "
                    "multiple or virtual_stages = 1",
                    microbatches, stages));
  }
  const int total = microbatches * chunks;
  // Microbatches go through in rounds of as many as there are stages, each round through all chunks.
  const auto slot = [&](int k, bool forward) {
    if (chunks == 1) return PipelineSlot{forward, k, 0};
    const int round = k / (stages * chunks), place = k % (stages * chunks);
    const int chunk = place / stages;
    return PipelineSlot{forward, round * stages + place % stages, forward ? chunk : chunks - 1 - chunk};
  };
  const int warm_up = chunks == 1 ? stages - 1 - stage : 2 * (stages - 1 - stage) + (chunks - 1) * stages;
  const int ahead = backward ? std::min(total, warm_up) : total;
  std::vector<PipelineSlot> slots;
  for (int k = 0; k < ahead; ++k) slots.push_back(slot(k, true));
  for (int k = ahead; k < total; ++k) {
    slots.push_back(slot(k, true));
    slots.push_back(slot(k - ahead, false));
  }
  for (int k = total - ahead; backward && k < total; ++k) slots.push_back(slot(k, false));
  return slots;
}

}  // namespace orrery
