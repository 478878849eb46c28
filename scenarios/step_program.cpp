#include "scenarios/step_program.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <stdexcept>
#include <utility>

#include "scenarios/step_writer.hpp"

namespace orrery {
namespace {

Degrees folded(const StepProgramInput& input) {
  Degrees degrees = input.shape.degrees;
  degrees.data /= input.folds;
  degrees.context /= input.context_folds;
  return degrees;
}

/// Parts in rings of `folds` times as many nodes.
std::vector<RingPart> unfolded(std::vector<RingPart> parts, int folds) {
  for (RingPart& part : parts) {
    const int nodes = (part.node_hops + 1) * folds;
    part.members *= folds;
    part.node_hops = nodes - 1;
    part.local_hops = part.members - nodes;
  }
  return parts;
}

}  // namespace

StepProgram::StepProgram(StepProgramInput input)
    : input_(std::move(input)),
      degrees_(input_.shape.degrees),
      attention_(input_.attention),
      grid_(folded(input_), input_.placement),
      tensor_(ring_parts(grid_, {Axis::tensor}, input_.node_size)),
      replicas_(unfolded(ring_parts(grid_, {Axis::context, Axis::data}, input_.node_size),
                         input_.folds * input_.context_folds)),
      context_(unfolded(ring_parts(grid_, {Axis::context}, input_.node_size), input_.context_folds)) {
  const int chunks = degrees_.pipeline * degrees_.virtual_stages;
  if (input_.shape.layers % chunks != 0) {
    throw std::invalid_argument(
        fmt::format("{} layers cannot be dealt out to {} pipeline stages of {} chunks (each "
                    "gets as many), use degrees whose product divides {}",
                    input_.shape.layers, degrees_.pipeline, degrees_.virtual_stages, input_.shape.layers));
  }
  layers_per_chunk_ = input_.shape.layers / chunks;
  count_keys_read();
  set_costs();
  signals_.assign(attention_.signals().begin(), attention_.signals().end());
  signals_.insert(signals_.end(), step_signal_names.begin(), step_signal_names.end());
  make_slots();
  make_partition();
}

std::span<const std::string> StepProgram::categories() const {
  return step_category_names();
}

std::span<const std::string> step_category_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all(category_names().begin(), category_names().end());
    all.insert(all.end(), {"tables", "optimizer", "parameter_gather", "gradient_reduction", "tensor_collective",
                           "context_collective", "pipeline_transfer"});
    return all;
  }();
  return names;
}

std::span<const std::string> StepProgram::phases() const {
  static const std::array<std::string, 3> names = {"forward", "backward", "optimizer"};
  return names;
}

// --- Ranks that do the same ---

/// Where a group begins in a domain of measured links, as far as that decides which of its ranks are in one: 0 if all
/// are.
Rank StepProgram::place_in_domain(const RankSet& group) const {
  const LinkTimings& links = attention_.input().links;
  if (links.join(group.first, group[group.count - 1])) return 0;
  return 1 + group.first % links.domain / std::gcd(links.domain, group.stride);
}

void StepProgram::make_partition() {
  const Rank n = ranks();
  const auto distance = [&](Rank from, Rank to) { return to < 0 ? -1 : (to - from + n) % n; };
  std::map<std::vector<Rank>, std::set<Rank>> alike;
  for (Rank rank = 0; rank < n; ++rank) {
    std::vector<Rank> key = {grid_.at(rank, Axis::pipeline), grid_.at(rank, Axis::context),
                             place_in_domain(context_group_of(rank))};
    for (const auto* parts : {&tensor_, &replicas_, &context_}) {
      const RingPart& part = (*parts)[static_cast<std::size_t>(rank)];
      key.push_back(distance(rank, part.next_local));
      key.push_back(distance(rank, part.next_node));
    }
    alike[key].insert(rank);
  }
  std::set<Rank> strides = {1, input_.node_size};
  for (int axis = 0; axis < axes; ++axis) strides.insert(grid_.stride(static_cast<Axis>(axis)));
  for (auto& [key, members] : alike) {
    while (!members.empty()) {
      RankSet longest{*members.begin(), 1, 1};
      for (const Rank stride : strides) {
        Rank count = 1;
        while (members.contains(longest.first + count * stride)) ++count;
        if (count > longest.count) longest = {longest.first, stride, count};
      }
      for (Rank i = 0; i < longest.count; ++i) members.erase(longest[i]);
      sets_.push_back(longest);
    }
  }
}

void StepProgram::partition(std::int64_t, std::vector<RankSet>& sets) const {
  sets.insert(sets.end(), sets_.begin(), sets_.end());
}

// --- Ops ---

void StepProgram::generate(Rank rank, std::int64_t block, OpBuffer& buffer) const {
  buffer.begin(block);
  const Slot& slot = slot_at(rank, block);
  const std::int64_t in_slot = block % slot_blocks_;
  const VisitPlan* visit = visit_at(slot, in_slot);
  if (visit == nullptr) return;
  const auto in_visit = static_cast<int>(in_slot - visit->first_block);
  Counts counts = slot.before;
  const Counts& before = in_visit > 0 ? visit->before_end : visit->before;
  for (std::size_t s = 0; s < counts.size(); ++s) counts[s] += before[s];
  write(rank, slot, *visit, in_visit, counts, buffer);
}

std::string StepProgram::describe(Rank rank, std::int64_t block, std::int32_t index) const {
  OpBuffer buffer;
  generate(rank, block, buffer);
  const Slot& slot = slot_at(rank, block);
  const VisitPlan* visit = visit_at(slot, block % slot_blocks_);
  const Op& op = buffer.ops()[static_cast<std::size_t>(index)];
  return fmt::format("microbatch {} layer {} {} {}", slot.microbatch + 1, visit->layer + 1, phases()[op.phase],
                     categories()[op.category]);
}

}  // namespace orrery
