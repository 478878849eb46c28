// Runs the tiles of every pattern x layout x schedule on real tensors.
#include <fmt/format.h>

#include <algorithm>

#include "tests/catch.hpp"
#include "tests/validate/tiny_programs.hpp"
#include "validate/functional.hpp"

using namespace orrery;

namespace {

using Kind = Primitive::Kind;

struct NamedPattern {
  std::string name;
  bool causal;
  std::vector<Primitive> primitives;
  std::vector<Index> document_shares = {};  // in sixteenths of the sequence
};

std::vector<NamedPattern> patterns() {
  const Primitive full{.kind = Kind::full};
  const auto window = [](Index left, Index right = 0) {
    return Primitive{.kind = Kind::window, .left = left, .right = right};
  };
  const auto stride = [](Index period, Index count) {
    return Primitive{.kind = Kind::stride, .period = period, .count = count};
  };
  const auto gated = [](Index period) { return Primitive{.kind = Kind::gated_skip, .period = period}; };
  const Primitive sink{.kind = Kind::sink, .first = 2};
  Primitive second_layer_only = stride(7, 1);
  second_layer_only.layers = {2};
  Primitive second_layer_gated = gated(8);
  second_layer_gated.layers = {2};
  return {
      {"full causal", true, {full}},
      {"full", false, {full}},
      {"packed documents", true, {full}, {3, 8, 5}},
      {"window", true, {window(3)}},
      {"window over several ranks", true, {window(11)}},
      {"window beyond the sequence", true, {window(1000)}},
      {"two-sided window", false, {window(2, 3)}},
      {"pi, count 1", true, {window(2), stride(5, 1)}},
      {"pi, count 2, period inside the window", true, {window(4), stride(3, 2)}},
      {"pi, all", true, {window(2), stride(4, 0)}},
      {"pi, far", true, {window(1), stride(13, 1)}},
      {"pi, period beyond the sequence", true, {window(2), stride(1000, 1)}},
      {"pi, two-sided", false, {window(1, 1), stride(6, 1)}},
      {"sink and window", true, {window(2), sink}},
      {"sink, window, stride, documents", true, {window(2), sink, stride(4, 0)}, {9, 7}},
      {"stride in the second layer only", true, {window(2), second_layer_only}},
      {"gated skip", true, {window(2), gated(5)}},
      {"gated skip, far", true, {window(1), gated(13)}},
      {"gated skip, its own keys alone", true, {window(0), gated(9)}},
      {"gated skip, sink, documents", true, {window(1), sink, gated(7)}, {5, 11}},
      {"gated skip in the second layer only", true, {window(2), second_layer_gated}},
  };
}

struct NamedImplementation {
  std::string name;
  Implementation implementation;
};

/// Every branch of the schedules: transports, orders, merges, hops and directions.
std::vector<NamedImplementation> implementations() {
  std::vector<NamedImplementation> all;
  const auto add = [&](std::string name, auto change) {
    Implementation i = ideal_implementation();
    change(i);
    all.push_back({std::move(name), i});
  };
  add("ideal", [](Implementation&) {});
  add("nccl, merge kernels", [](Implementation& i) {
    i.transport = Transport::nccl;
    i.merge = i.gradient_sum = Merge::kernel;
    i.transfer_order = TransferOrder::previous_compute;
    i.gather_attention = GatherAttention::per_rank;
    i.gather_gradients = GatherGradients::ring;
  });
  add("gradient kernels only", [](Implementation& i) { i.gradient_sum = Merge::kernel; });
  add("one hop more, gradients with the loop, gathers of one head", [](Implementation& i) {
    i.extra_ring_hop = true;
    i.gather_kv_heads = 1;
  });
  add("last received first, nccl", [](Implementation& i) {
    i.transport = Transport::nccl;
    i.merge = i.gradient_sum = Merge::kernel;
    i.ring_backward = RingBackward::last_received;
    i.transfer_order = TransferOrder::previous_compute;
    i.gather_kv_heads = 1;
  });
  add("last received first, copy engine, no overlap", [](Implementation& i) {
    i.ring_backward = RingBackward::last_received;
    i.transfer_order = TransferOrder::same_step_compute;
    i.gather_attention = GatherAttention::per_rank;
  });
  add("merge kernels, copy engine", [](Implementation& i) {
    i.merge = i.gradient_sum = Merge::kernel;
    i.gather_attention = GatherAttention::per_rank;
    i.gather_gradients = GatherGradients::ring;
  });
  add("one kernel for own and fetched rows, hops wait for free SMs", [](Implementation& i) {
    i.transport = Transport::nccl;
    i.merge = i.gradient_sum = Merge::kernel;
    i.transfer_order = TransferOrder::free_sms;
    i.halo_attention = GatherAttention::together;
  });
  add("a halo that is kept, and sums of blocks that are skipped", [](Implementation& i) {
    i.merge = i.gradient_sum = Merge::kernel;
    i.halo_is_kept = i.sums_skipped_blocks = true;
  });
  add("a kept halo over nccl", [](Implementation& i) {
    i.transport = Transport::nccl;
    i.halo_attention = GatherAttention::together;
    i.halo_is_kept = true;
  });
  add("a halo of whole windows", [](Implementation& i) {
    i.halo_attention = GatherAttention::together;
    i.halo_is_kept = i.halo_of_whole_windows = true;
  });
  add("a kernel for each chunk of gathered queries", [](Implementation& i) {
    i.transport = Transport::nccl;
    i.gather_chunks = true;
  });
  add("a host that is ahead from the second hop on", [](Implementation& i) {
    i.transport = Transport::nccl;
    i.merge = i.gradient_sum = Merge::kernel;
    i.transfer_order = TransferOrder::free_sms_when_ahead;
    i.gradients_apart = true;
  });
  return all;
}

void check(TinyCase c, const NamedPattern& pattern, const NamedImplementation& implementation, std::uint64_t seed) {
  c.pattern = pattern.primitives;
  c.causal = pattern.causal;
  for (const Index share : pattern.document_shares) c.documents.push_back(share * c.tokens / 16);
  if (!c.documents.empty()) {
    Index rest = c.tokens;
    for (std::size_t i = 0; i + 1 < c.documents.size(); ++i) rest -= c.documents[i];
    c.documents.back() = rest;
  }
  c.implementation = implementation.implementation;
  INFO(fmt::format("{} / {} / {} / {} groups x {} members, inner {} / {} heads, {} KV heads / {}", c.schedule, c.layout,
                   pattern.name, c.groups, c.members, c.inner_ring, c.heads, c.kv_heads, implementation.name));
  const AttentionProgram program = tiny_program(c);
  // One case in four in a random order, the others starving some streams.
  const FunctionalErrors errors = check_function(program, 2 * seed + (seed / 2 % 4 == 0 ? 0 : 1));
  CHECK(errors.output < 1e-10);
  CHECK(errors.d_query < 1e-10);
  CHECK(errors.d_key < 1e-10);
  CHECK(errors.d_value < 1e-10);
}

/// Degrees of (groups, members, inner ring) with which a schedule runs on P ranks.
std::vector<TinyCase> degrees(const std::string& schedule, int ranks) {
  const ScheduleKind& kind = row_named(schedules(), schedule);
  std::vector<TinyCase> cases;
  const auto add = [&](int groups, int members, int inner) {
    TinyCase c;
    c.schedule = schedule;
    c.groups = groups;
    c.members = members;
    c.inner_ring = inner;
    cases.push_back(c);
  };
  for (int divisor = 1; divisor <= ranks; ++divisor) {
    if (ranks % divisor != 0) continue;
    const bool over_nodes = schedule == "all_gather" && divisor < std::max(ranks, 2);  // places of a node
    if (kind.needs_inner_ring || over_nodes) {
      add(ranks, 1, divisor);
    } else if (kind.head_exchange == ScheduleKind::HeadExchange::stated) {
      add(ranks / divisor, divisor, 1);
    } else if (divisor == 1) {
      const bool exchange = kind.head_exchange == ScheduleKind::HeadExchange::all_ranks;
      add(exchange ? 1 : ranks, exchange ? ranks : 1, 1);
    }
  }
  return cases;
}

void check_schedule(const std::string& schedule) {
  std::uint64_t seed = 1;
  const auto all_implementations = implementations();
  const bool fetches = row_named(schedules(), schedule).slots.hold == ScheduleKind::Slots::Hold::fetched;
  for (const Layout& layout : layouts()) {
    for (int ranks = 1; ranks <= 8; ++ranks) {
      const std::vector<TinyCase> cases = degrees(schedule, ranks);
      for (std::size_t degree = 0; degree < cases.size(); ++degree) {
        TinyCase c = cases[degree];
        c.layout = layout.name;
        c.tokens = 2 * ranks * (ranks <= 2 ? 6 : ranks <= 4 ? 3 : 2);
        c.residue_period = 2 * c.groups;
        if (c.tokens % c.residue_period != 0) c.residue_period = c.groups;
        std::size_t turn = degree;
        for (const NamedPattern& pattern : patterns()) {
          ++turn;
          // A fetch counts the values beyond its keys, and does not name them.
          if (fetches && Pattern(pattern.primitives, c.layers).has_gated_skips()) continue;
          for (const bool grouped : {false, true}) {
            // Of several degrees, every other one has grouped heads.
            if (cases.size() > 1 && (turn % 2 == 0) == grouped) continue;
            // Heads that every degree divides; grouped: fewer KV heads than members where that is possible.
            // Four KV heads without an exchange: gathers of one head at a time meet both slots more than once.
            c.heads = c.members == 1 ? 4 : 2 * c.members;
            c.kv_heads = grouped ? (c.members % 2 == 0 ? c.members / 2 : c.members) : c.heads;
            // Every implementation meets every schedule, layout and pattern; not every one of their products.
            const NamedImplementation& implementation = all_implementations[seed / 7 % all_implementations.size()];
            check(c, pattern, implementation, seed++);
          }
        }
      }
    }
  }
}

}  // namespace

// Together: every pattern x layout x schedule, 1 to 8 ranks, GQA and MHA, forward and backward, two layers.
TEST_CASE("ring adds up to masked softmax attention and its gradients") {
  check_schedule("ring");
}
TEST_CASE("double_ring adds up to masked softmax attention and its gradients") {
  check_schedule("double_ring");
}
TEST_CASE("all_gather adds up to masked softmax attention and its gradients") {
  check_schedule("all_gather");
}
TEST_CASE("ulysses adds up to masked softmax attention and its gradients") {
  check_schedule("ulysses");
}
TEST_CASE("usp adds up to masked softmax attention and its gradients") {
  check_schedule("usp");
}
TEST_CASE("halo adds up to masked softmax attention and its gradients") {
  check_schedule("halo");
}

TEST_CASE("every schedule of the table is checked on tensors") {
  CHECK(schedules().size() == 6);
}
