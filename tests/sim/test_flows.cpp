// Max-min fair sharing of links.
#include "sim/flows.hpp"

#include <algorithm>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

std::vector<Link> links_of(const std::vector<double>& bandwidths) {
  std::vector<Link> links;
  for (const double bandwidth : bandwidths) links.push_back(Link{"", BytesPerSecond::from_si(bandwidth), Seconds{}});
  return links;
}

Route over(std::vector<LinkId> links) {
  return Route{std::move(links), Seconds{}};
}

/// Every flow has a link that is full and on which no other flow is faster; that alone characterises max-min fairness.
void check_max_min(const FlowNetwork& network, const std::vector<Link>& links, const std::vector<Route>& routes,
                   const std::vector<FlowId>& flows) {
  std::vector<double> load(links.size());
  std::vector<double> fastest(links.size());
  for (std::size_t i = 0; i < flows.size(); ++i) {
    for (const LinkId link : routes[i].links) {
      load[link] += network.rate(flows[i]);
      fastest[link] = std::max(fastest[link], network.rate(flows[i]));
    }
  }
  for (std::size_t link = 0; link < links.size(); ++link) CHECK(load[link] <= links[link].bandwidth.si() * (1 + 1e-9));
  for (std::size_t i = 0; i < flows.size(); ++i) {
    const bool has_bottleneck = std::any_of(routes[i].links.begin(), routes[i].links.end(), [&](LinkId link) {
      return load[link] >= links[link].bandwidth.si() * (1 - 1e-9) &&
             network.rate(flows[i]) >= fastest[link] * (1 - 1e-9);
    });
    CHECK(has_bottleneck);
  }
}

}  // namespace

TEST_CASE("A flow alone gets the smallest bandwidth on its route, two on one link half each") {
  const auto links = links_of({100, 60});
  FlowNetwork network(links);
  const Route both = over({0, 1});
  const FlowId first = network.add(both, bytes(600), 0);
  CHECK(network.solve(0).size() == 1);
  CHECK(network.rate(first) == 60);
  CHECK(network.seconds_left(first) == 10);
  const Ticks at = to_ticks(Seconds::from_si(5));
  const FlowId second = network.add(both, bytes(600), at);
  CHECK(network.solve(at).size() == 2);
  CHECK(network.rate(first) == 30);
  CHECK(network.rate(second) == 30);
  CHECK(network.seconds_left(first) == 10);  // 600 - 5 s * 60 B/s at 30 B/s
  network.remove(first, at);
  network.solve(at);
  CHECK(network.rate(second) == 60);
}

TEST_CASE("The classic three links in a row: the long flow gets the smallest fair share, the short ones the rest") {
  // Bertsekas and Gallager, Data Networks, section 6.5.2. Flow 0 uses links 0, 1, 2; flow i one link each.
  // Equal links of 12: all shares are 6. Then links of 12, 6, 20: link 1 is the first to fill, at 6 / 2 = 3; that
  // leaves 12 - 3 = 9 and 20 - 3 = 17 to the flows alone with the long one.
  const std::vector<Route> routes = {over({0, 1, 2}), over({0}), over({1}), over({2})};
  for (const auto& [bandwidths, expected] :
       {std::pair<std::vector<double>, std::vector<double>>{{12, 12, 12}, {6, 6, 6, 6}},
        std::pair<std::vector<double>, std::vector<double>>{{12, 6, 20}, {3, 9, 3, 17}}}) {
    const auto links = links_of(bandwidths);
    FlowNetwork network(links);
    for (const Route& route : routes) network.add(route, bytes(1), 0);
    network.solve(0);
    for (FlowId flow = 0; flow < 4; ++flow) CHECK(network.rate(flow) == expected[flow]);
  }
}

TEST_CASE("A second level: flows freed from a slow link share what it leaves on a fast one") {
  // Link 0 of 10 carries A, B, C, D (2.5 each); link 1 of 100 carries D, E, F: 97.5 are left for E and F.
  const auto links = links_of({10, 100});
  FlowNetwork network(links);
  const std::vector<Route> routes = {over({0}), over({0}), over({0}), over({0, 1}), over({1}), over({1})};
  for (const Route& route : routes) network.add(route, bytes(1), 0);
  network.solve(0);
  CHECK(network.rate(3) == 2.5);
  CHECK(network.rate(4) == 48.75);
  CHECK(network.rate(5) == 48.75);
}

TEST_CASE("Random flows on random links are max-min fair after every arrival and departure") {
  std::mt19937 random(7);
  const auto pick = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  for (int round = 0; round < 20; ++round) {
    std::vector<double> bandwidths;
    const int link_count = 2 + pick(20);
    for (int i = 0; i < link_count; ++i) bandwidths.push_back(1.0 + pick(100));
    const auto links = links_of(bandwidths);
    FlowNetwork network(links);
    std::vector<Route> routes;
    routes.reserve(100);  // the network keeps pointers to them
    std::vector<FlowId> flows;
    for (int i = 0; i < 60; ++i) {
      std::vector<LinkId> way(static_cast<std::size_t>(link_count));
      for (int link = 0; link < link_count; ++link) way[link] = link;
      std::shuffle(way.begin(), way.end(), random);
      way.resize(static_cast<std::size_t>(1 + pick(std::min(link_count, 5))));
      routes.push_back(over(way));
      flows.push_back(network.add(routes.back(), bytes(1e6), i));
      network.solve(i);
      check_max_min(network, links, routes, flows);
    }
    std::vector<Route> left(routes);
    for (int i = 0; i < 30; ++i) {
      const int gone = pick(static_cast<int>(flows.size()));
      network.remove(flows[gone], 100 + i);
      flows.erase(flows.begin() + gone);
      left.erase(left.begin() + gone);
      network.solve(100 + i);
      check_max_min(network, links, left, flows);
    }
  }
}

TEST_CASE("Rates found from those before a change are those found afresh") {
  std::mt19937 random(11);
  const auto pick = [&](std::size_t below) { return static_cast<std::size_t>(random() % below); };
  for (int round = 0; round < 8; ++round) {
    constexpr std::size_t most_flows = 200;
    const std::size_t link_count = 40 + pick(300);  // from all flows connected to small islands
    std::vector<double> bandwidths;
    for (std::size_t i = 0; i < link_count; ++i)
      bandwidths.push_back(round % 2 == 0 ? 100.0 : 1.0 + 0.1 * static_cast<double>(pick(1000)));
    const auto links = links_of(bandwidths);
    FlowNetwork network(links);
    std::deque<Route> routes;  // the network keeps pointers to them
    std::vector<std::pair<FlowId, const Route*>> flows;
    for (int change = 0; change < 400; ++change) {
      if (flows.size() == most_flows || (!flows.empty() && pick(3) == 0)) {
        const std::size_t gone = pick(flows.size());
        network.remove(flows[gone].first, change);
        flows.erase(flows.begin() + static_cast<std::ptrdiff_t>(gone));
      } else {
        std::vector<LinkId> way;
        for (std::size_t hops = 1 + pick(4); way.size() < hops;) {
          const auto link = static_cast<LinkId>(pick(link_count));
          if (std::find(way.begin(), way.end(), link) == way.end()) way.push_back(link);
        }
        routes.push_back(over(way));
        flows.emplace_back(network.add(routes.back(), bytes(1e6), change), &routes.back());
      }
      if (change % 3 == 0) continue;  // now and then several changes at once
      network.solve(change);
      FlowNetwork afresh(links);
      for (const auto& [flow, route] : flows) afresh.add(*route, bytes(1), 0);
      afresh.solve(0);
      for (std::size_t i = 0; i < flows.size(); ++i) {
        CHECK_THAT(network.rate(flows[i].first), WithinRel(afresh.rate(static_cast<FlowId>(i)), 1e-12));
      }
    }
  }
}

TEST_CASE("Rates do not depend on the order in which flows arrive, nor on what was there before") {
  const auto links = links_of({7, 11, 13, 5});
  const std::vector<Route> routes = {over({0, 1}), over({1, 2}), over({2, 3}),
                                     over({3, 0}), over({0, 2}), over({1, 3})};
  std::vector<int> order = {0, 1, 2, 3, 4, 5};
  std::vector<double> expected;
  do {
    FlowNetwork network(links);
    std::vector<FlowId> flows(6);
    const FlowId passing = network.add(routes[order[0]], bytes(1), 0);
    for (const int i : order) flows[i] = network.add(routes[i], bytes(1), 0);
    network.remove(passing, 0);
    network.solve(0);
    std::vector<double> rates;
    for (const FlowId flow : flows) rates.push_back(network.rate(flow));
    if (expected.empty()) expected = rates;
    CHECK(rates == expected);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("What is not connected to a change is not touched") {
  const auto links = links_of({10, 10, 10});
  FlowNetwork network(links);
  const std::vector<Route> routes = {over({0}), over({0}), over({1, 2}), over({2})};
  for (const Route& route : routes) network.add(route, bytes(1), 0);
  network.solve(0);
  network.remove(0, 1);
  const auto changes = network.solve(1);
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].flow == 1);
  CHECK(changes[0].old_rate == 5);
  CHECK(network.rate(1) == 10);
}

TEST_CASE("After changes of bandwidth, down to none, the shares are those of a network that never had others") {
  for (unsigned seed = 0; seed < 40; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const auto pick = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
    constexpr int count = 12;
    std::vector<Link> links = links_of(std::vector<double>(count, 10));
    FlowNetwork network(links);
    std::deque<Route> routes;
    std::vector<FlowId> flows;
    for (int step = 0; step < 60; ++step) {
      if (pick(2) == 0) {
        const int first = pick(count);
        routes.push_back(over({first, (first + 1 + pick(count - 1)) % count}));
        flows.push_back(network.add(routes.back(), bytes(1e9), step));
      }
      const int changed = pick(count);
      links[changed].bandwidth = BytesPerSecond::from_si(pick(4) == 0 ? 0 : 1 + pick(20));
      network.set_bandwidth(changed, links[changed].bandwidth);
      network.solve(step);
      FlowNetwork other(links);
      std::vector<FlowId> same;
      for (const Route& route : routes) same.push_back(other.add(route, bytes(1e9), step));
      other.solve(step);
      check_max_min(network, links, {routes.begin(), routes.end()}, flows);
      for (std::size_t i = 0; i < flows.size(); ++i)
        CHECK_THAT(network.rate(flows[i]), WithinRel(other.rate(same[i]), 1e-11));
    }
  }
}
