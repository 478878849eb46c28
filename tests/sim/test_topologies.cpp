// Routes, latencies and shared bandwidth of every topology.
#include "sim/topologies.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "sim/flows.hpp"
#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

const LinkSpec fast{gigabytes_per_second(450), microseconds(0.5)};
const LinkSpec slow{gigabytes_per_second(50), microseconds(2)};

std::string route_text(const Cluster& cluster, Rank source, Rank destination) {
  std::string text;
  for (const LinkId link : cluster.route(source, destination).links) {
    text += (text.empty() ? "" : ", ") + cluster.links()[link].name;
  }
  return text;
}

double latency_us(const Cluster& cluster, Rank source, Rank destination) {
  return cluster.route(source, destination).latency.si() * 1e6;
}

/// The rates of one flow per pair, all at the same time.
std::vector<double> rates(const Cluster& cluster, const std::vector<std::pair<Rank, Rank>>& pairs) {
  FlowNetwork network(cluster.links());
  std::vector<FlowId> flows;
  for (const auto& [source, destination] : pairs)
    flows.push_back(network.add(cluster.route(source, destination), bytes(1), 0));
  network.solve(0);
  std::vector<double> result;
  for (const FlowId flow : flows) result.push_back(network.rate(flow));
  return result;
}

}  // namespace

TEST_CASE("nvswitch: two links and two latencies between any two GPUs") {
  const Cluster cluster = nvswitch({}, {8, fast});
  CHECK(cluster.ranks() == 8);
  CHECK(cluster.links().size() == 2 * 8);
  CHECK(route_text(cluster, 3, 5) == "gpu3 -> nvswitch, nvswitch -> gpu5");
  CHECK_THAT(latency_us(cluster, 3, 5), WithinRel(1.0, 1e-12));
  CHECK(cluster.route(3, 3).links.empty());
  CHECK(cluster.route(3, 3).latency.si() == 0);
  cluster.check_connected();
}

TEST_CASE("full_mesh: one link between any two GPUs") {
  const Cluster cluster = full_mesh({}, {6, fast});
  CHECK(cluster.links().size() == 6 * 5);
  for (Rank a = 0; a < 6; ++a) {
    for (Rank b = 0; b < 6; ++b) CHECK(cluster.route(a, b).links.size() == (a == b ? 0U : 1U));
  }
  cluster.check_connected();
}

TEST_CASE("pcie_tree: through the switch, the root complex or both sockets, as far up as needed") {
  const Cluster cluster = pcie_tree({}, {8, 2, fast, slow, 2, LinkSpec{gigabytes_per_second(20), microseconds(1)}});
  CHECK(route_text(cluster, 0, 1) == "gpu0 -> pcie0, pcie0 -> gpu1");
  CHECK(route_text(cluster, 0, 2) == "gpu0 -> pcie0, pcie0 -> root0, root0 -> pcie1, pcie1 -> gpu2");
  CHECK(route_text(cluster, 0, 7) == "gpu0 -> pcie0, pcie0 -> root0, root0 -> root1, root1 -> pcie3, pcie3 -> gpu7");
  CHECK_THAT(latency_us(cluster, 0, 1), WithinRel(2 * 0.5, 1e-12));
  CHECK_THAT(latency_us(cluster, 0, 2), WithinRel(2 * 0.5 + 2 * 2.0, 1e-12));
  CHECK_THAT(latency_us(cluster, 0, 7), WithinRel(2 * 0.5 + 2 * 2.0 + 1.0, 1e-12));
  // Four GPUs of one socket to four of the other share the link between the sockets.
  for (const double rate : rates(cluster, {{0, 4}, {1, 5}, {2, 6}, {3, 7}})) CHECK(rate == 20e9 / 4);
  cluster.check_connected();
}

TEST_CASE("torus: the number of links is the sum over dimensions, with one per pair in a dimension of size 2") {
  const auto links = [](Rank gpus, std::vector<Rank> shape) {
    return torus({}, {gpus, std::move(shape), fast}).links().size();
  };
  CHECK(links(1, {1}) == 0);
  CHECK(links(2, {2}) == 2 * 1);
  CHECK(links(3, {3}) == 2 * 3);
  CHECK(links(8, {8}) == 2 * 8);
  CHECK(links(8, {4, 2}) == 2 * (8 + 4));
  CHECK(links(16, {4, 4}) == 2 * 2 * 16);
  CHECK(links(64, {4, 4, 4}) == 2 * 3 * 64);
  CHECK(links(4, {1, 4, 1}) == 2 * 4);
}

TEST_CASE("torus: a route is as long as the sum of the shorter ways round") {
  const std::vector<Rank> shape = {5, 4, 3};
  const Cluster cluster = torus({}, {60, shape, fast});
  cluster.check_connected();
  for (Rank a = 0; a < 60; ++a) {
    for (Rank b = 0; b < 60; ++b) {
      Rank hops = 0;
      Rank stride = 1;
      for (const Rank size : shape) {
        const Rank distance = std::abs(a / stride % size - b / stride % size);
        hops += std::min(distance, size - distance);
        stride *= size;
      }
      CHECK(static_cast<Rank>(cluster.route(a, b).links.size()) == hops);
      CHECK_THAT(latency_us(cluster, a, b), WithinAbs(0.5 * hops, 1e-9));
    }
  }
}

TEST_CASE("torus: routes finish one dimension before the next, and a shift by one leaves every flow its own link") {
  const Cluster cluster = torus({}, {16, {4, 4}, fast});
  CHECK(route_text(cluster, 0, 5) == "gpu0 -> gpu4, gpu4 -> gpu5");
  std::vector<std::pair<Rank, Rank>> shift;
  for (Rank rank = 0; rank < 16; ++rank) shift.emplace_back(rank, rank / 4 * 4 + (rank + 1) % 4);
  for (const double rate : rates(cluster, shift)) CHECK(rate == 450e9);
}

TEST_CASE("torus: both cables of a dimension of size 2 count if the parameters say so") {
  CHECK(rates(torus({}, {2, {2}, fast, false}), {{0, 1}})[0] == 450e9);
  CHECK(rates(torus({}, {2, {2}, fast, true}), {{0, 1}})[0] == 900e9);
}

TEST_CASE("fat_tree of NVSwitch nodes: own node, own rail, own pod, and the spine otherwise") {
  FatTree parameters{8, NvSwitch{4, fast}, slow, 4, 1, microseconds(3)};
  const Cluster cluster = fat_tree({}, parameters);
  CHECK(cluster.ranks() == 32);
  CHECK(route_text(cluster, 0, 3) == "gpu0 -> node0 nvswitch, node0 nvswitch -> gpu3");
  CHECK(route_text(cluster, 1, 5) == "gpu1 -> pod0 rail1, pod0 rail1 -> gpu5");
  CHECK(route_text(cluster, 1, 17) ==
        "gpu1 -> pod0 rail1, pod0 rail1 -> spine, spine -> pod1 rail1, pod1 rail1 -> gpu17");
  // Another rail: 2 * 0.5 us through the NVSwitch is less than 2 * 3 us over the spine.
  CHECK(route_text(cluster, 0, 5) ==
        "gpu0 -> node0 nvswitch, node0 nvswitch -> gpu1, gpu1 -> pod0 rail1, pod0 rail1 -> gpu5");
  CHECK_THAT(latency_us(cluster, 0, 5), WithinRel(2 * 0.5 + 2 * 2.0, 1e-12));
  cluster.check_connected();

  parameters.uplink_latency = microseconds(0.1);  // now the spine is nearer
  CHECK(route_text(fat_tree({}, parameters), 0, 5) ==
        "gpu0 -> pod0 rail0, pod0 rail0 -> spine, spine -> pod0 rail1, pod0 rail1 -> gpu5");
  parameters.uplink_latency = fast.latency;  // a tie goes to the sender's NVSwitch
  CHECK(route_text(fat_tree({}, parameters), 0, 5) ==
        "gpu0 -> node0 nvswitch, node0 nvswitch -> gpu1, gpu1 -> pod0 rail1, pod0 rail1 -> gpu5");
}

TEST_CASE("fat_tree: across pods a flow gets network bandwidth / oversubscription when all send, and all of it alone") {
  for (const double oversubscription : {1.0, 2.0, 4.0}) {
    const Cluster cluster = fat_tree({}, {8, NvSwitch{2, fast}, slow, 4, oversubscription, microseconds(1)});
    std::vector<std::pair<Rank, Rank>> bisection;
    for (Rank rank = 0; rank < 8; ++rank) bisection.emplace_back(rank, rank + 8);
    CAPTURE(oversubscription);
    for (const double rate : rates(cluster, bisection)) CHECK_THAT(rate, WithinRel(50e9 / oversubscription, 1e-12));
    CHECK(rates(cluster, {{0, 8}})[0] == 50e9);
    // Within a pod the leaf does not block.
    CHECK(rates(cluster, {{0, 2}, {2, 4}, {4, 6}, {6, 0}}) == std::vector<double>(4, 50e9));
  }
}

TEST_CASE("fat_tree of PCIe nodes: the NIC hangs from the GPU's PCIe switch") {
  const PcieTree node{4, 2, fast, fast, 1, std::nullopt};
  const Cluster cluster = fat_tree({}, {2, node, slow, 2, 1, microseconds(9)});
  CHECK(route_text(cluster, 0, 4) ==
        "gpu0 -> node0 pcie0, node0 pcie0 -> nic0, nic0 -> pod0 rail0, pod0 rail0 -> nic4, "
        "nic4 -> node1 pcie0, node1 pcie0 -> gpu4");
  CHECK(cluster.route(0, 1).links.size() == 2);
  CHECK(cluster.route(0, 2).links.size() == 4);
  cluster.check_connected();
}

TEST_CASE("A GPU does not pass on traffic of others unless it is told to") {
  Cluster chain(GpuResources{});
  const auto a = chain.add_gpu("a");
  const auto b = chain.add_gpu("b");
  const auto c = chain.add_gpu("c");
  chain.connect(a, b, gigabytes_per_second(1), Seconds{});
  chain.connect(b, c, gigabytes_per_second(1), Seconds{});
  CHECK_THROWS_WITH(chain.route(0, 2), ContainsSubstring("rank 0 (a)") && ContainsSubstring("rank 2 (c)"));
  CHECK_THROWS_AS(chain.check_connected(), std::runtime_error);
  chain.set_gpus_forward(true);
  CHECK(route_text(chain, 0, 2) == "a -> b, b -> c");
  chain.check_connected();
}

TEST_CASE("Least latency wins, then fewest hops, then the lowest numbered link") {
  Cluster cluster(GpuResources{});
  const auto a = cluster.add_gpu("a");
  const auto b = cluster.add_gpu("b");
  const auto x = cluster.add_switch("x");
  const auto y = cluster.add_switch("y");
  for (const auto middle : {y, x}) {
    cluster.connect(a, middle, gigabytes_per_second(1), microseconds(1));
    cluster.connect(middle, b, gigabytes_per_second(1), microseconds(1));
  }
  CHECK(route_text(cluster, 0, 1) == "a -> y, y -> b");
  cluster.connect(a, b, gigabytes_per_second(1), microseconds(2));
  CHECK(route_text(cluster, 0, 1) == "a -> b");
  cluster.connect(x, y, gigabytes_per_second(1), Seconds{});
  const auto z = cluster.add_switch("z");
  cluster.connect(a, z, gigabytes_per_second(1), microseconds(0.5));
  cluster.connect(z, b, gigabytes_per_second(1), microseconds(1));
  CHECK(route_text(cluster, 0, 1) == "a -> z, z -> b");
}

TEST_CASE("Parameters that make no sense are refused with a reason and a suggestion") {
  const LinkSpec dead{BytesPerSecond{}, Seconds{}};
  CHECK_THROWS_WITH(nvswitch({}, {0, fast}), ContainsSubstring("gpus of nvswitch is 0"));
  CHECK_THROWS_WITH(nvswitch({}, {8, dead}), ContainsSubstring("bandwidth"));
  CHECK_THROWS_WITH(full_mesh({}, {-1, fast}), ContainsSubstring("gpus of full_mesh is -1"));
  CHECK_THROWS_WITH(full_mesh({}, {2, {gigabytes_per_second(1), Seconds::from_si(-1)}}), ContainsSubstring("latency"));
  CHECK_THROWS_WITH(pcie_tree({}, {5, 2, fast, fast, 1, std::nullopt}), ContainsSubstring("multiple of 2"));
  CHECK_THROWS_WITH(pcie_tree({}, {8, 2, fast, fast, 2, std::nullopt}), ContainsSubstring("inter_socket"));
  CHECK_THROWS_WITH(pcie_tree({}, {6, 2, fast, fast, 2, fast}), ContainsSubstring("even number"));
  CHECK_THROWS_WITH(pcie_tree({}, {8, 2, fast, fast, 3, fast}), ContainsSubstring("1 or 2"));
  CHECK_THROWS_WITH(torus({}, {8, {2, 3}, fast}), ContainsSubstring("2 x 3 has 6 places"));
  CHECK_THROWS_WITH(torus({}, {8, {}, fast}), ContainsSubstring("dimensions"));
  CHECK_THROWS_WITH(torus({}, {16, {2, 2, 2, 2}, fast}), ContainsSubstring("1 to 3"));
  CHECK_THROWS_WITH(torus({}, {8, {8, 0}, fast}), ContainsSubstring("size in the shape"));
  CHECK_THROWS_WITH(fat_tree({}, {2, NvSwitch{8, fast}, slow, 2, 0.5, Seconds{}}),
                    ContainsSubstring("oversubscription"));
  CHECK_THROWS_WITH(fat_tree({}, {2, NvSwitch{8, fast}, slow, 0, 1, Seconds{}}), ContainsSubstring("nodes_per_pod"));
  CHECK_THROWS_WITH(fat_tree({}, {0, NvSwitch{8, fast}, slow, 1, 1, Seconds{}}), ContainsSubstring("nodes"));
  CHECK_THROWS_WITH(fat_tree({}, {2, NvSwitch{0, fast}, slow, 1, 1, Seconds{}}), ContainsSubstring("gpus"));
}

TEST_CASE("A link over which nothing would ever arrive is refused, naming its ends") {
  Cluster cluster({});
  const auto a = cluster.add_gpu("gpu0"), b = cluster.add_gpu("gpu1");
  for (const double bandwidth : {0.0, -1.0, std::nan("")}) {
    CHECK_THROWS_WITH(cluster.connect(a, b, BytesPerSecond::from_si(bandwidth), Seconds()),
                      ContainsSubstring("gpu0 - gpu1") && ContainsSubstring("nothing would ever arrive"));
  }
}

TEST_CASE("A latency that time cannot hold, alone or with others on a route, is refused by the name of its link") {
  const Seconds beyond = Seconds::from_si(1.01 * std::ldexp(1, 63) / ticks_per_second);
  Cluster cluster({});
  const auto a = cluster.add_gpu("gpu0"), b = cluster.add_gpu("gpu1"), hub = cluster.add_switch("hub");
  CHECK_THROWS_WITH(cluster.connect(a, hub, fast.bandwidth, beyond),
                    ContainsSubstring("the link gpu0 - hub has a latency of 9.32e+06 s"));
  cluster.connect(a, hub, fast.bandwidth, beyond * 0.625);
  cluster.connect(hub, b, fast.bandwidth, beyond * 0.5);
  const auto c = cluster.add_gpu("gpu2"), far = cluster.add_switch("far");
  cluster.connect(hub, far, fast.bandwidth, beyond * 0.5);
  cluster.connect(far, c, fast.bandwidth, beyond * 0.625);
  // Found by the short search, over one switch, and by the long one.
  CHECK_THROWS_AS(cluster.route(0, 1), std::overflow_error);
  CHECK_THROWS_WITH(cluster.route(0, 1),
                    ContainsSubstring("add up to 1.05e+07 s") && ContainsSubstring("for the link gpu0 -> hub"));
  CHECK_THROWS_WITH(cluster.route(1, 2),
                    ContainsSubstring("add up to 1.51e+07 s") && ContainsSubstring("for the link far -> gpu2"));
  // What is no shorter way is not refused for it.
  cluster.connect(a, b, fast.bandwidth, beyond * 0.75);
  CHECK(route_text(cluster, 0, 1) == "gpu0 -> gpu1");
}

TEST_CASE("The table lists every topology once") {
  std::vector<std::string_view> names;
  for (const TopologyInfo& topology : topologies()) names.push_back(topology.name);
  CHECK(names == std::vector<std::string_view>{"nvswitch", "full_mesh", "pcie_tree", "torus", "fat_tree"});
}

TEST_CASE("every route is as short as an independent search finds") {
  const LinkSpec rail{gigabytes_per_second(50), microseconds(1)};
  for (const LinkSpec& inside : {LinkSpec{gigabytes_per_second(450), microseconds(0.5)}, rail, slow}) {
    const Cluster cluster = fat_tree({}, {4, NvSwitch{4, inside}, rail, 2, 1, microseconds(1)});
    // Floyd and Warshall over the names in the links; everything forwards. A hop is a hundredth of a picosecond.
    std::map<std::string, std::map<std::string, double>> length;
    for (const Link& link : cluster.links()) {
      const std::size_t arrow = link.name.find(" -> ");
      length[link.name.substr(0, arrow)][link.name.substr(arrow + 4)] = link.latency.si() * 1e12 + 0.01;
    }
    for (const auto& [middle, unused] : length) {
      for (const auto& [from, unused_too] : length) {
        if (!length[from].contains(middle)) continue;
        for (const auto& [to, rest] : std::map(length[middle])) {
          double& known = length[from].try_emplace(to, 1e30).first->second;
          known = std::min(known, length[from][middle] + rest);
        }
      }
    }
    for (Rank a = 0; a < cluster.ranks(); ++a) {
      for (Rank b = 0; b < cluster.ranks(); ++b) {
        if (a == b) continue;
        const Route& route = cluster.route(a, b);
        const double expected = length["gpu" + std::to_string(a)]["gpu" + std::to_string(b)];
        INFO(a << " to " << b);
        CHECK_THAT(route.latency.si() * 1e12 + 0.01 * static_cast<double>(route.links.size()),
                   WithinAbs(expected, 0.004));
      }
    }
  }
}
