#include "scenarios/intensity.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

namespace orrery {
namespace {

/// Hops on the transport's stream have one step to hide under, those between inner rings the steps of an inner ring.
enum Path : std::size_t { inner, outer, path_count };

Path path_of(const Op& op) {
  return op.stream == Stream::network ? outer : inner;
}

Bytes sent_by(const Op& op, const OpBuffer& buffer) {
  Bytes sum;
  for (const Message& m : buffer.messages_of(op)) {
    if (m.source != m.destination) sum += m.size;
  }
  return sum;
}

/// What the first step of all ranks puts on links.
struct FirstHop {
  Bytes most_sent;  // by one rank
  Bytes on_link;    // the link that needs longest for its share, and its bandwidth
  BytesPerSecond link_rate = BytesPerSecond::from_si(1);
};

std::array<FirstHop, path_count> first_hops(const AttentionProgram& program, const Cluster& cluster,
                                            const Visit& visit) {
  std::array<FirstHop, path_count> hops;
  std::array<std::vector<Bytes>, path_count> load;
  load.fill(std::vector<Bytes>(cluster.links().size()));
  OpBuffer buffer;
  for (Rank rank = 0; rank < program.ranks(); ++rank) {
    program.generate(rank, program.block_of_step(visit, 0), buffer);
    std::array<Bytes, path_count> sent;
    for (const Op& op : buffer.ops()) {
      if (op.category != static_cast<std::uint8_t>(Category::kv_transfer)) continue;
      sent[path_of(op)] += sent_by(op, buffer);
      for (const Message& m : buffer.messages_of(op)) {
        if (m.source == m.destination) continue;
        for (const LinkId link : cluster.route(m.source, m.destination).links)
          load[path_of(op)][static_cast<std::size_t>(link)] += m.size;
      }
    }
    for (std::size_t p = 0; p < path_count; ++p) hops[p].most_sent = std::max(hops[p].most_sent, sent[p]);
  }
  for (std::size_t p = 0; p < path_count; ++p) {
    for (std::size_t l = 0; l < load[p].size(); ++l) {
      const BytesPerSecond rate = cluster.links()[l].bandwidth;
      if (load[p][l] / rate > hops[p].on_link / hops[p].link_rate) {
        hops[p].on_link = load[p][l];
        hops[p].link_rate = rate;
      }
    }
  }
  return hops;
}

/// What one rank computes and sends, step by step.
struct Steps {
  std::vector<Flops> flops;
  std::array<std::vector<Bytes>, path_count> sent;  // at the step it may run beside
  std::size_t end = 0;                              // after the last step with attention or a block under way
};

/// A transfer that waits for the rank's own attention runs beside the step after that (gradients), others beside the
/// step they are issued in.
int runs_beside(const Op& op, Rank rank, const Visit& visit, int issued_in) {
  std::int64_t step = issued_in;
  for (std::size_t w = 0; w < op.wait_count; ++w) {
    const Wait& wait = op.waits[w];
    const SignalRef computed = at(rank, Signal::computed);
    if (wait.stage == WaitStage::start && wait.signal.rank == rank && wait.signal.signal == computed.signal) {
      step = std::max(step, wait.count - visit.before[Signal::computed]);
    }
  }
  return static_cast<int>(step);
}

Steps steps_of(const AttentionProgram& program, const Visit& visit, Rank rank) {
  const int count = program.steps(visit);
  Steps steps;
  steps.flops.resize(static_cast<std::size_t>(count));
  steps.sent.fill(std::vector<Bytes>(static_cast<std::size_t>(count)));
  OpBuffer buffer;
  for (int step = 0; step < count; ++step) {
    WorkTotals work;
    program.actions(rank, program.block_of_step(visit, step), buffer, &work);
    steps.flops[static_cast<std::size_t>(step)] = work.attention_executed;
    if (work.attention_executed > Flops()) steps.end = std::max(steps.end, static_cast<std::size_t>(step) + 1);
    for (const Op& op : buffer.ops()) {
      if (op.message_count == 0) continue;
      const auto beside = static_cast<std::size_t>(runs_beside(op, rank, visit, step));
      if (beside >= steps.flops.size()) continue;
      steps.sent[path_of(op)][beside] += sent_by(op, buffer);
      if (op.category == static_cast<std::uint8_t>(Category::kv_transfer)) steps.end = std::max(steps.end, beside + 1);
    }
  }
  return steps;
}

/// The hop of one path that is hardest to hide. In a ring all ranks send alike, so later hops follow from the bytes of
/// one; in a halo exchange everything is sent in the first step.
Intensity hardest_hop(const FirstHop& first, const Steps& steps, Path path, int window, const Intensity& rates) {
  const std::vector<Bytes>& sent = steps.sent[path];
  // The gradient's last hop home comes after all attention and is not counted.
  const auto length = static_cast<std::size_t>(window);
  Intensity hardest = rates;
  for (std::size_t begin = 0; begin < steps.end; begin += length) {
    Intensity here = rates;
    Bytes bytes;
    for (std::size_t s = begin; s < std::min(begin + length, steps.end); ++s) {
      bytes += sent[s];
      here.flops += steps.flops[s];
    }
    here.bytes = begin == 0 ? first.on_link : first.on_link * (bytes / first.most_sent);
    // Without bytes, `hardest` is still empty.
    const bool is_first = !(hardest.bytes > Bytes());
    if (here.bytes > Bytes() && (is_first || here.ratio() > hardest.ratio())) hardest = here;
  }
  return hardest;
}

bool attention_waits_for_gradient(const AttentionProgram& program, const Visit& visit, Rank rank) {
  OpBuffer buffer;
  for (int step = 0; step < std::min(2, program.steps(visit)); ++step) {
    for (const Action& action : program.actions(rank, program.block_of_step(visit, step), buffer)) {
      if (action.kind == ActionKind::attend_backward && action.adds_in) return true;
    }
  }
  return false;
}

}  // namespace

Intensities intensities_of(const AttentionProgram& program, const Cluster& cluster, Rank busiest) {
  const AttentionProgramInput& input = program.input();
  if (!input.schedule->no_hops.empty()) return {{}, {std::string(input.schedule->no_hops)}};
  Intensities result;
  std::map<std::pair<Phase, Path>, Intensity> hardest_hops;
  for (const AttentionProgram::VisitKind& kind : program.visit_kinds()) {
    const Visit& visit = program.visits()[kind.first];
    if (attention_waits_for_gradient(program, visit, busiest)) {
      result.without = {fmt::format("backward, the attention of {} waits for the gradient that it adds to",
                                    input.implementation.name)};
      continue;
    }
    const auto first = first_hops(program, cluster, visit);
    const Steps steps = steps_of(program, visit, busiest);
    const Constant& efficiency = visit.phase == Phase::forward ? input.profile.attention_forward_efficiency
                                                               : input.profile.attention_backward_efficiency;
    for (const Path path : {inner, outer}) {
      if (!(first[path].most_sent > Bytes())) continue;
      if (input.implementation.transfer_order == TransferOrder::same_step_compute) {
        return {{}, {fmt::format("{} sends a block only after the attention of its step", input.implementation.name)}};
      }
      Intensity i;
      i.phase = visit.phase;
      i.outer = path == outer;
      i.tokens = static_cast<double>(input.geometry.tokens_of(busiest).size());
      i.link_rate = first[path].link_rate;
      i.compute_rate = input.peaks.matrix * efficiency.value;
      i = hardest_hop(first[path], steps, path, path == outer ? input.inner_ring : 1, i);
      const auto [known, is_new] = hardest_hops.try_emplace({visit.phase, path}, i);
      if (!is_new && i.ratio() > known->second.ratio()) known->second = i;
    }
  }
  for (const auto& [key, intensity] : hardest_hops) result.hops.push_back(intensity);
  if (result.hops.empty() && result.without.empty()) {
    result.without.emplace_back("no rank sends keys and values to another while it attends");
  }
  return result;
}

}  // namespace orrery
