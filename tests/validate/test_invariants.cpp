// What holds for every program on every cluster: bytes, streams, links, accounts, critical path.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/validate/cases.hpp"
#include "validate/closed_form.hpp"

using namespace orrery;

namespace {

struct Collected : SpanSink {
  std::vector<Span> op_spans;
  std::vector<LinkSpan> link_spans;
  void ops(std::span<const Span> spans) override { op_spans.insert(op_spans.end(), spans.begin(), spans.end()); }
  void links(std::span<const LinkSpan> spans) override {
    link_spans.insert(link_spans.end(), spans.begin(), spans.end());
  }
};

/// The whole program in memory.
struct Node {
  Op op;
  std::vector<Message> messages;
  int before = -1;  // on the same stream
  Ticks issued = 0;
  Ticks begin = 0, end = 0;
  std::vector<Ticks> delivered{};
};

std::vector<Node> materialise(const Program& program) {
  std::vector<Node> nodes;
  for (Rank rank = 0; rank < program.ranks(); ++rank) {
    std::map<Stream, int> last;
    Ticks host = 0;
    for_each_op(program, rank, [&](const Op& op, std::span<const Message> messages) {
      Node node{op, {messages.begin(), messages.end()}};
      const auto previous = last.find(op.stream);
      if (previous != last.end()) node.before = previous->second;
      node.issued = host += op.launch;
      node.delivered.resize(node.messages.size());
      last[op.stream] = static_cast<int>(nodes.size());
      nodes.push_back(std::move(node));
    });
  }
  return nodes;
}

/// End of the program if nobody had to share: the least times that satisfy every order of the program, reached from
/// zero by applying the orders until nothing moves.
Ticks uncontended_end(const Program& program, const Cluster& cluster) {
  std::vector<Node> nodes = materialise(program);
  using Key = std::pair<Rank, std::int32_t>;
  std::map<Key, std::vector<Ticks>> raised;
  const auto raise = [&](SignalRef signal, Ticks time) {
    if (signal.rank >= 0) raised[{signal.rank, signal.signal}].push_back(time);
  };
  const auto after_waits = [&](const Node& node, WaitStage stage, Ticks time) {
    for (int i = 0; i < node.op.wait_count; ++i) {
      const Wait& wait = node.op.waits[static_cast<std::size_t>(i)];
      if (wait.stage != stage || wait.signal.rank < 0 || wait.count <= 0) continue;
      const auto& times = raised[{wait.signal.rank, wait.signal.signal}];
      REQUIRE(static_cast<std::int64_t>(times.size()) >= wait.count);
      time = std::max(time, times[static_cast<std::size_t>(wait.count - 1)]);
    }
    return time;
  };
  bool moved = true;
  int rounds = 0;
  while (moved) {
    REQUIRE(++rounds < 10000);
    moved = false;
    raised.clear();
    for (const Node& node : nodes) {
      raise(node.op.started, node.begin);
      for (const SignalRef& signal : node.op.finished) raise(signal, node.end);
      for (std::size_t m = 0; m < node.messages.size(); ++m) raise(node.messages[m].delivered, node.delivered[m]);
    }
    for (auto& [signal, times] : raised) std::sort(times.begin(), times.end());
    for (Node& node : nodes) {
      const Ticks free = node.before < 0 ? 0 : nodes[static_cast<std::size_t>(node.before)].end;
      const Ticks begin = after_waits(node, WaitStage::start, std::max(free, node.issued));
      const Ticks departs = after_waits(node, WaitStage::transfer, begin + node.op.duration);
      Ticks end = departs;
      for (std::size_t m = 0; m < node.messages.size(); ++m) {
        const Message& message = node.messages[m];
        Ticks alone = 0;
        if (message.source != message.destination && message.size > Bytes()) {
          const Route& route = cluster.route(message.source, message.destination);
          double bandwidth = cluster.links()[static_cast<std::size_t>(route.links.front())].bandwidth.si();
          for (const LinkId link : route.links) {
            bandwidth = std::min(bandwidth, cluster.links()[static_cast<std::size_t>(link)].bandwidth.si());
          }
          alone = to_ticks(route.latency) + to_ticks(message.size / BytesPerSecond::from_si(bandwidth));
        }
        node.delivered[m] = departs + alone;
        end = std::max(end, node.delivered[m]);
      }
      end = after_waits(node, WaitStage::finish, end);
      moved = moved || begin != node.begin || end != node.end;
      node.begin = begin;
      node.end = end;
    }
  }
  Ticks last = 0;
  for (const Node& node : nodes) last = std::max(last, node.end);
  return last;
}

}  // namespace

TEST_CASE("the invariants hold on programs of every kind") {
  int with_contention = 0, without = 0;
  for (const NamedCase& named : cases()) {
    INFO(named.name);
    const AttentionProgram program = tiled_program(named);
    const Cluster cluster = cluster_of(named.topology, 1);
    Collected spans;
    const SimulationResult result = simulate(program, cluster, &spans);

    // Bytes: sent is received is what the messages hold, on every link of their routes.
    double messages = 0;
    std::vector<double> sent(8), received(8), on_link(cluster.links().size());
    const std::vector<Node> nodes = materialise(program);
    for (const Node& node : nodes) {
      for (const Message& m : node.messages) {
        if (m.source == m.destination || !(m.size > Bytes())) continue;
        messages += m.size.si();
        sent[static_cast<std::size_t>(m.source)] += m.size.si();
        received[static_cast<std::size_t>(m.destination)] += m.size.si();
        for (const LinkId link : cluster.route(m.source, m.destination).links) {
          on_link[static_cast<std::size_t>(link)] += m.size.si();
        }
      }
    }
    for (std::size_t r = 0; r < 8; ++r) {
      CHECK(result.ranks[r].sent.si() == sent[r]);
      CHECK(result.ranks[r].received.si() == received[r]);
      CHECK(program.work_of(static_cast<Rank>(r)).sent.si() == sent[r]);
    }
    CHECK(std::accumulate(sent.begin(), sent.end(), 0.0) == messages);
    CHECK(std::accumulate(received.begin(), received.end(), 0.0) == messages);
    for (std::size_t link = 0; link < on_link.size(); ++link) CHECK(result.links[link].bytes.si() == on_link[link]);

    // Streams run one op at a time, links within their capacity, and one stretch of time after the other.
    std::map<std::pair<Rank, Stream>, Ticks> stream_end, stream_busy;
    CHECK(spans.op_spans.size() == nodes.size());
    bool in_order = true;
    for (const Span& span : spans.op_spans) {
      Ticks& end = stream_end[{span.rank, span.stream}];
      in_order = in_order && span.start >= end && span.end >= span.start && span.end <= result.end;
      end = span.end;
      stream_busy[{span.rank, span.stream}] += span.end - span.start;
    }
    CHECK(in_order);
    std::vector<Ticks> link_end(cluster.links().size());
    std::vector<double> carried(cluster.links().size());
    bool within = true;
    for (const LinkSpan& span : spans.link_spans) {
      const auto link = static_cast<std::size_t>(span.link);
      within = within && span.rate.si() <= cluster.links()[link].bandwidth.si() * (1 + 1e-12) && span.flows > 0 &&
               span.start >= link_end[link] && span.end <= result.end;
      link_end[link] = span.end;
      carried[link] += span.rate.si() * to_seconds(span.end - span.start).si();
    }
    CHECK(within);
    for (std::size_t link = 0; link < carried.size(); ++link) {
      // Every change of rate rounds to a tick.
      CHECK(std::abs(carried[link] - on_link[link]) <= 1e-4 * on_link[link] + 1);
    }

    // Time: busy streams, accounts, critical path.
    Ticks latest = 0;
    for (const auto& [stream, end] : stream_end) latest = std::max(latest, end);
    CHECK(result.end == latest);
    for (Rank r = 0; r < 8; ++r) {
      const RankTotals& rank = result.ranks[static_cast<std::size_t>(r)];
      for (int s = 0; s < streams_per_rank; ++s) {
        CHECK(rank.stream_busy[static_cast<std::size_t>(s)] <= result.end);
        CHECK(rank.stream_busy[static_cast<std::size_t>(s)] == stream_busy[std::pair(r, static_cast<Stream>(s))]);
      }
      CHECK(rank.compute + rank.exposed_comm + rank.idle == result.end);
      CHECK(rank.exposed_comm <= rank.comm);
      CHECK(rank.comm <= rank.exposed_comm + rank.compute);
    }
    const CriticalPath& path = result.critical_path;
    const Ticks on_path = std::accumulate(path.by_category.begin(), path.by_category.end(), Ticks{0});
    CHECK(on_path + path.contention + path.launch == result.end);
    const Ticks alone = uncontended_end(program, cluster);
    CHECK(result.end >= alone);
    if (path.contention == 0) CHECK(result.end == alone);
    ++(path.contention == 0 ? without : with_contention);

    // Work: the mask's pairs, each once.
    const AttentionProgramInput& input = program.input();
    double pairs = 0, useful = 0, executed = 0;
    for (const int pattern_class : input.class_of_layer) {
      const TokenSet all({{0, named.scenario.tokens, 1}});
      pairs += static_cast<double>(input.masks[static_cast<std::size_t>(pattern_class)].pairs(all, all));
    }
    for (Rank r = 0; r < 8; ++r) {
      const WorkTotals work = program.work_of(r);
      CHECK(work.executed >= work.useful);
      useful += work.useful.si();
      executed += work.executed.si();
    }
    const double passes = named.scenario.backward ? 1 + 2.5 : 1;
    CHECK(useful == 4 * pairs * passes * named.scenario.head_dim * named.scenario.heads);
    CHECK(executed >= useful);
  }
  // The comparison with the uncontended program means something only if both kinds are there.
  CHECK(without >= 10);
  CHECK(with_contention >= 10);
}

TEST_CASE("the same program gives the same result twice") {
  for (const NamedCase& named : cases()) {
    INFO(named.name);
    Collected first, second;
    const SimulationResult a = simulate(tiled_program(named), cluster_of(named.topology, 1), &first);
    const SimulationResult b = simulate(tiled_program(named), cluster_of(named.topology, 1), &second);
    CHECK(a.end == b.end);
    CHECK(a.events == b.events);
    CHECK(a.critical_path.by_category == b.critical_path.by_category);
    CHECK(a.critical_path.contention == b.critical_path.contention);
    const auto same_op = [](const Span& x, const Span& y) {
      return x.rank == y.rank && x.stream == y.stream && x.block == y.block && x.index == y.index &&
             x.start == y.start && x.end == y.end;
    };
    CHECK(std::equal(first.op_spans.begin(), first.op_spans.end(), second.op_spans.begin(), second.op_spans.end(),
                     same_op));
    const auto same_link = [](const LinkSpan& x, const LinkSpan& y) {
      return x.link == y.link && x.flows == y.flows && x.rate == y.rate && x.start == y.start && x.end == y.end;
    };
    CHECK(std::equal(first.link_spans.begin(), first.link_spans.end(), second.link_spans.begin(),
                     second.link_spans.end(), same_link));
    // A sink does not change what happens.
    CHECK(simulate(tiled_program(named), cluster_of(named.topology, 1)).end == a.end);
  }
}

TEST_CASE("links of twice the bandwidth never make these programs slower") {
  for (const NamedCase& named : cases()) {
    INFO(named.name);
    const AttentionProgram program = tiled_program(named);
    const Ticks once = simulate(program, cluster_of(named.topology, 1)).end;
    const Ticks twice = simulate(program, cluster_of(named.topology, 2)).end;
    CHECK(twice <= once);
  }
}

TEST_CASE("every schedule and layout splits the pairs of the mask without loss or repeat") {
  for (const NamedCase& named : cases()) {
    const AttentionProgram program = program_of(named.scenario);
    double useful = 0, executed = 0;
    for (Rank r = 0; r < program.ranks(); ++r) {
      useful += program.work_of(r).useful.si();
      executed += program.work_of(r).executed.si();
    }
    INFO(named.name);
    // The counts the schedule keeps are those of the blocks it writes.
    for (Rank r = 0; r < program.ranks(); ++r) {
      CHECK(program.flops_of(r).useful.si() == program.work_of(r).useful.si());
      CHECK(program.flops_of(r).executed.si() == program.work_of(r).executed.si());
    }
    // Tiles of one pair: only overlapping primitives are computed twice.
    CHECK(executed >= useful);
    if (named.scenario.pattern.size() == 1) CHECK(executed == useful);
  }
}
