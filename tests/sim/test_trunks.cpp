// Links that always carry the same flows: which ones they are, and that processor sharing gives their max-min shares.
#include "sim/trunks.hpp"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <utility>

#include "sim/flows.hpp"
#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"
#include "tests/sim/same_result.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

constexpr Rank pairs = 6;

/// Ranks 0 .. 5 behind one switch, 6 .. 11 behind another; one cable between them.
Cluster two_switches(double cable, std::vector<double> own, Seconds latency = {}) {
  Cluster cluster({});
  const auto left = cluster.add_switch("left"), right = cluster.add_switch("right");
  for (Rank rank = 0; rank < 2 * pairs; ++rank) {
    cluster.connect(cluster.add_gpu(fmt::format("gpu{}", rank)), rank < pairs ? left : right,
                    gigabytes_per_second(own[static_cast<std::size_t>(rank % pairs)]), latency);
  }
  cluster.connect(left, right, gigabytes_per_second(cable), {});
  return cluster;
}

/// Between ranks of the two; a link that two transfers use is not private.
Trunks trunks_of(const Cluster& cluster, const std::vector<std::pair<Rank, Rank>>& transfers) {
  RouteTable routes(cluster, 2 * pairs);
  std::vector<int> uses(cluster.links().size());
  for (const auto& [from, to] : transfers) {
    const CachedRoute& route = routes.at(routes.column((to - from + 2 * pairs) % (2 * pairs)), from);
    for (const LinkId link : route.route->links) ++uses[static_cast<std::size_t>(link)];
  }
  std::vector<bool> is_private;
  for (const int count : uses) is_private.push_back(count < 2);
  return find_trunks(routes, cluster.links(), is_private);
}

struct Arrival {
  Ticks at = 0;
  double size = 0;
  Ticks end = 0;
};

/// When each ends, found by the solver: every flow has links of its own and the shared ones.
void run_by_solver(const std::vector<Link>& links, const std::vector<Route>& routes, std::vector<Arrival>& flows) {
  FlowNetwork network(links);
  std::vector<FlowId> ids(flows.size(), -1);
  std::vector<Ticks> ends(flows.size(), -1);
  Ticks now = 0;
  while (true) {
    Ticks next = std::numeric_limits<Ticks>::max();
    for (std::size_t i = 0; i < flows.size(); ++i) {
      if (flows[i].at >= now && ids[i] < 0) next = std::min(next, flows[i].at);
      if (ends[i] >= 0) next = std::min(next, ends[i]);
    }
    if (next == std::numeric_limits<Ticks>::max()) return;
    now = next;
    for (std::size_t i = 0; i < flows.size(); ++i) {
      if (ends[i] == now) {
        network.remove(ids[i], now);
        flows[i].end = now;
        ends[i] = -1;
      }
      if (flows[i].at == now && ids[i] < 0) ids[i] = network.add(routes[i], bytes(flows[i].size), now);
    }
    for (const FlowNetwork::Change& change : network.solve(now)) {
      for (std::size_t i = 0; i < flows.size(); ++i) {
        if (ids[i] != change.flow || flows[i].end > 0) continue;
        ends[i] = now + std::llround(network.seconds_left(change.flow) * ticks_per_second);
      }
    }
  }
}

void run_by_trunk(Trunk trunk, std::vector<Arrival>& flows) {
  Ticks end = -1;
  std::vector<Trunk::Member> ended;
  std::size_t arrived = 0;
  while (arrived < flows.size() || end >= 0) {
    const Ticks arrival = arrived < flows.size() ? flows[arrived].at : std::numeric_limits<Ticks>::max();
    const Ticks now = end >= 0 ? std::min(end, arrival) : arrival;
    if (now == end) {
      ended.clear();
      trunk.remove_first(now, ended);
      for (const Trunk::Member member : ended) flows[static_cast<std::size_t>(member)].end = now;
    }
    for (; arrived < flows.size() && flows[arrived].at == now; ++arrived) {
      trunk.add(static_cast<Trunk::Member>(arrived), flows[arrived].size, now);
    }
    trunk.share(now);
    end = trunk.empty() ? -1 : now + std::llround(trunk.ticks_left());
  }
}

}  // namespace

TEST_CASE("A cable that carries the flows of equal pairs is a trunk, with what a pair's own links let through") {
  const Cluster cluster = two_switches(4, std::vector<double>(pairs, 2));
  const Trunks found = trunks_of(cluster, {{0, 6}, {1, 7}, {2, 8}});
  REQUIRE(found.trunks.size() == 1);
  REQUIRE(found.trunks[0].links().size() == 1);
  CHECK(cluster.links()[static_cast<std::size_t>(found.trunks[0].links()[0])].name == "left -> right");
  CHECK(found.of(cluster.route(1, 7)) == 0);
  CHECK(found.of(cluster.route(7, 1)) == -1);
  // Alone as fast as its own links, two likewise (4 / 2), three a third of the cable each.
  Trunk trunk = found.trunks[0];
  const std::vector<double> expected = {2e9, 2e9, 4e9 / 3};
  for (int flow = 0; flow < 3; ++flow) {
    trunk.add(flow, 1e6, 0);
    trunk.share(0);
    CHECK(trunk.rate() == expected[static_cast<std::size_t>(flow)]);
  }
}

TEST_CASE("Links are no trunk if a flow shares only some of them, or is slower than others by its own links") {
  const std::vector<double> equal(pairs, 2);
  // Rank 3 sends to two ranks, so its own link is shared too, by flows that do not share the rest.
  CHECK(trunks_of(two_switches(4, equal), {{0, 6}, {3, 9}, {3, 10}}).trunks.empty());
  CHECK(trunks_of(two_switches(4, {2, 1, 2, 2, 2, 2}), {{0, 6}, {1, 7}}).trunks.empty());
  // Slower than others, but faster than the cable: that decides for all.
  CHECK(trunks_of(two_switches(0.5, {2, 1, 2, 2, 2, 2}), {{0, 6}, {1, 7}}).trunks.size() == 1);
  // Two flows from one rank to another share all links: a trunk of all three.
  const Trunks same = trunks_of(two_switches(4, equal), {{0, 6}, {0, 6}});
  REQUIRE(same.trunks.size() == 1);
  CHECK(same.trunks[0].links().size() == 3);
}

TEST_CASE("Flows over a trunk end when max-min sharing of its links lets them end") {
  std::mt19937 random(3);
  const auto pick = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  for (int round = 0; round < 60; ++round) {
    INFO("round " << round);
    // Two shared links, and an own one for each flow; rates of 1 to 100 GB/s.
    const double own = (1 + pick(50)) * giga, first = (1 + pick(100)) * giga, second = (1 + pick(100)) * giga;
    const std::size_t count = 1 + static_cast<std::size_t>(pick(round < 50 ? 12 : 300));
    std::vector<Link> links = {{"first", BytesPerSecond::from_si(first), {}},
                               {"second", BytesPerSecond::from_si(second), {}}};
    std::vector<Route> routes;
    std::vector<Arrival> flows;
    Ticks at = 0;
    for (std::size_t i = 0; i < count; ++i) {
      links.push_back({"own", BytesPerSecond::from_si(own), {}});
      routes.push_back(Route{{static_cast<LinkId>(i + 2), 0, 1}, {}});
      at += pick(3) == 0 ? 0 : pick(2'000'000);  // bursts, and up to 2 us apart
      flows.push_back({at, 1.0 + pick(100'000)});
    }
    std::vector<Arrival> by_trunk = flows;
    run_by_solver(links, routes, flows);
    const double capacity = std::min(first, second);
    run_by_trunk(Trunk({0, 1}, BytesPerSecond::from_si(capacity), BytesPerSecond::from_si(std::min(own, capacity))),
                 by_trunk);
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(std::abs(by_trunk[i].end - flows[i].end) <= 1);
    }
  }
}

TEST_CASE("A trunk that is never empty keeps its precision") {
  // Two flows at a time: when one ends, half of the other has come, and the next begins. Each pair lasts as long as one
  // flow alone, since half of it goes at half the rate.
  const double size = 1e9 / 3, capacity = 70e9;
  const Ticks expected = std::llround(size / capacity * ticks_per_second);
  Trunk trunk({0}, BytesPerSecond::from_si(capacity), BytesPerSecond::from_si(capacity));
  std::vector<Trunk::Member> ended;
  Ticks now = 0;
  trunk.add(0, size / 2, now);
  for (Trunk::Member flow = 1; flow < 20'000; ++flow) {
    trunk.add(flow, size, now);
    trunk.share(now);
    const Ticks lasts = std::llround(trunk.ticks_left());
    CHECK(std::abs(lasts - expected) <= 2);  // half a tick too early or too late for one is a whole one for the next
    now += lasts;
    ended.clear();
    trunk.remove_first(now, ended);
    CHECK(ended == std::vector<Trunk::Member>{flow - 1});
  }
}

TEST_CASE("When a trunk takes in what has come does not matter") {
  // Who asks for a trace gets the rates of every moment: every flow is taken in when it comes. Else it is when the
  // trunk changes, or never if the flow comes to nothing before.
  struct Nowhere : SpanSink {
    void ops(std::span<const Span>) override {}
    void links(std::span<const LinkSpan>) override {}
  };
  std::mt19937 random(5);
  const auto pick = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  for (int round = 0; round < 60; ++round) {
    INFO("round " << round);
    const Cluster cluster = two_switches(1 + pick(12), std::vector<double>(pairs, 2), microseconds(pick(2) * 3));
    ListProgram program(2 * pairs, {"computed"});
    // From bursts, in which a small flow overtakes large ones, to flows of which the next comes when the last is gone.
    const int most_between = 1 << pick(20), largest = 1 << pick(20), startups = pick(3);
    for (Rank rank = 0; rank < pairs; ++rank) {
      for (int i = 1; i <= 12; ++i) {
        Op compute = compute_op(1000 * pick(most_between));
        compute.finished[0] = {rank, 0};
        program.add(rank, compute);
        Op send = transfer_op(Stream::copy_out, startups * pick(2) * us);
        send.wait_for({rank, 0}, i - pick(2));
        program.add(rank, send, {{rank, rank + pairs, bytes(1 + pick(largest)), {}}});
      }
    }
    Nowhere sink;
    const SimulationResult traced = simulate(program, cluster, &sink);
    const SimulationResult plain = simulate(program, cluster, {.engine = Engine::event});
    check_same(plain, traced);
  }
}
