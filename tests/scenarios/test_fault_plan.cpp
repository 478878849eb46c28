// [faults]: what it says, and what it says wrongly.
#include "scenarios/fault_plan.hpp"

#include "sim/topologies.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"

using namespace orrery;

namespace {

constexpr Ticks ms = 1'000'000'000;
constexpr double efficiency = 0.8;

BytesPerSecond gigabytes_per_second(double value) {
  return BytesPerSecond::from_si(value * 1e9);
}

/// Four chips in a ring that forward, 100 GB/s nominal.
Cluster ring() {
  return torus({}, Torus{4, {4}, {gigabytes_per_second(100 * efficiency), Seconds::from_si(1e-6)}});
}

FaultPlan plan(const std::string& keys) {
  const Table table = Table::parse("[faults]\n" + keys + "\n", "s.toml");
  return read_fault_plan(table.table("faults"), ring(), efficiency);
}

std::string message(const std::string& keys) {
  return message_of([&] { plan(keys); });
}

std::string link(const std::string& keys) {
  return "links = [{link = \"gpu0 -> gpu1\", " + keys + "}]";
}

}  // namespace

TEST_CASE("links that slow down or die and ranks that pause are read") {
  const FaultPlan read = plan(
      "links = [{link = \"gpu0 -> gpu1\", at = \"2 ms\", bandwidth = \"50 GB/s\"},\n"
      "         {link = \"gpu2 -> gpu1\", at = \"1 ms\", until = \"5 ms\", dead = true, then = \"stall\"},\n"
      "         {link = \"gpu3 -> gpu0\", at = \"0 s\", dead = true, then = \"reroute\"}]\n"
      "pauses = [{rank = 3, at = \"3 ms\", for = \"1 ms\"}]");
  const Cluster cluster = ring();
  const auto& links = read.faults->links;
  REQUIRE(links.size() == 3);
  CHECK(cluster.links()[static_cast<std::size_t>(links[0].link)].name == "gpu0 -> gpu1");
  CHECK(links[0].at == 2 * ms);
  CHECK(links[0].until == std::numeric_limits<Ticks>::max());
  CHECK(links[0].bandwidth == gigabytes_per_second(50) * efficiency);
  CHECK(read.stated[0] == gigabytes_per_second(50));
  CHECK(cluster.links()[static_cast<std::size_t>(links[1].link)].name == "gpu2 -> gpu1");
  CHECK(links[1].until == 5 * ms);
  CHECK(links[1].is_dead());
  CHECK_FALSE(links[1].reroutes);
  CHECK(links[2].reroutes);
  REQUIRE(read.faults->pauses.size() == 1);
  CHECK(read.faults->pauses[0].rank == 3);
  CHECK(read.faults->pauses[0].at == 3 * ms);
  CHECK(read.faults->pauses[0].until == 4 * ms);
}

TEST_CASE("every mistake in [faults] is named at its place") {
  const auto refused = [](const std::string& keys, const std::string& place, const std::string& words) {
    INFO(keys);
    CHECK_THAT(message(keys), ContainsSubstring("s.toml:" + place + ": ") && ContainsSubstring(words));
  };
  refused("", "1:1", "[faults] has no fault, add links or pauses");
  refused("pause = []", "2:1", "did you mean \"pauses\"");
  refused("links = [{link = \"gpu0 -> gpu9\", at = \"1 ms\", dead = true, then = \"stall\"}]", "2:18",
          "there is no link \"gpu0 -> gpu9\" in this cluster, did you mean \"gpu0 -> gpu");
  refused("links = [{link = \"uplink of the leaf\", at = \"1 ms\", dead = true, then = \"stall\"}]", "2:18",
          "links are named like \"gpu0 -> gpu1\"");
  refused(link("bandwidth = \"50 GB/s\""), "2:10", "missing key \"at\"");
  refused(link("at = 2, bandwidth = \"50 GB/s\""), "2:39", "at has no unit");
  refused(link("at = \"-2 ms\", bandwidth = \"50 GB/s\""), "2:39", "at = ");
  refused(link("at = \"2 ms\""), "2:10", "missing key \"bandwidth\"");
  refused(link("at = \"2 ms\", bandwidth = \"50 GiB\""), "2:59", "bandwidth = ");
  refused(link("at = \"2 ms\", bandwidth = \"0 GB/s\""), "2:59", "write dead = true and what happens then");
  refused(link("at = \"2 ms\", bandwidth = \"101 GB/s\""), "2:59",
          "bandwidth = 101 GB/s is more than the link has (100 GB/s), write less");
  refused(link("at = \"2 ms\", dead = true"), "2:10", "missing key \"then\"");
  refused(link("at = \"2 ms\", dead = false, then = \"stall\""), "2:54", "dead = false is no fault");
  refused(link("at = \"2 ms\", dead = true, then = \"rerout\""), "2:67", "did you mean \"reroute\"");
  refused(link("at = \"2 ms\", dead = true, then = \"stall\", bandwidth = \"1 GB/s\""), "2:76",
          "unknown key \"bandwidth\"");
  refused(link("at = \"2 ms\", until = \"2 ms\", bandwidth = \"50 GB/s\""), "2:10", "is back at 2 ms (not later)");
  refused(
      "links = [{link = \"gpu0 -> gpu1\", at = \"2 ms\", bandwidth = \"50 GB/s\"},\n"
      "{link = \"gpu0 -> gpu1\", at = \"3 ms\", dead = true, then = \"stall\"}]",
      "3:1", "link gpu0 -> gpu1 fails at 2 ms and at 3 ms, before it is back from the other");
  refused(
      "links = [{link = \"gpu0 -> gpu1\", at = \"2 ms\", dead = true, then = \"reroute\"},\n"
      "{link = \"gpu0 -> gpu3\", at = \"3 ms\", dead = true, then = \"reroute\"}]",
      "3:1", "there is no way around link gpu0 -> gpu3 at 3 ms (rank 0 (gpu0) cannot reach rank 1 (gpu1)");
  refused("pauses = [{rank = 4, at = \"1 ms\", for = \"1 ms\"}]", "2:19", "rank = 4 is not in 0 to 3");
  refused("pauses = [{rank = -1, at = \"1 ms\", for = \"1 ms\"}]", "2:19", "rank = -1 is not in 0 to 3");
  refused("pauses = [{rank = 1, at = \"1 ms\", for = \"0 s\"}]", "2:41", "for = 0 s is no pause");
  refused("pauses = [{rank = 1, at = \"1 ms\"}]", "2:11", "missing key \"for\"");
  refused("pauses = [{rank = 1, at = \"9e6 s\", for = \"9e6 s\"}]", "2:42", "ends beyond 2^63 ps");
  refused("pauses = [{rank = 1, at = \"1 ms\", for = \"1 ms\"}, {rank = 1, at = \"1.5 ms\", for = \"1 ms\"}]", "2:50",
          "rank 1 pauses at 1 ms and at 1.5 ms");
}

TEST_CASE("a fault that begins when all is over is named at its place") {
  const FaultPlan read =
      plan(link("at = \"2 ms\", bandwidth = \"50 GB/s\"") + "\npauses = [{rank = 3, at = \"3 ms\", for = \"1 ms\"}]");
  CHECK(message_of([&] { read.check_end(3 * ms + 1); }) == "no error");
  CHECK_THAT(message_of([&] { read.check_end(3 * ms); }),
             ContainsSubstring("s.toml:3:27: at = 3 ms is beyond the run (it ends after 3 ms)"));
  CHECK_THAT(message_of([&] { read.check_end(ms); }),
             ContainsSubstring("s.toml:2:39: at = 2 ms is beyond the run (it ends after 1 ms)"));
  CHECK(message_of([&] { FaultPlan{}.check_end(0); }) == "no error");
}
