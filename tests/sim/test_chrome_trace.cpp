// The trace is valid JSON with exact times and tracks on which nothing overlaps.
#include "sim/chrome_trace.hpp"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

std::string trace_of(const Program& program, const Cluster& cluster) {
  std::ostringstream out;
  ChromeTrace trace(out, program, cluster);
  simulate(program, cluster, &trace);
  trace.finish();
  return out.str();
}

Ticks picoseconds(const nlohmann::json& microseconds) {
  return std::llround(microseconds.get<double>() * 1e6);
}

}  // namespace

TEST_CASE("Complete events of a track do not overlap, every track is named, and the last event ends at the end") {
  const RingProgram program(5, 3, 1'234'567, bytes(1'000'003));
  // A slow link shared by all routes gives the link tracks changing rates.
  Cluster cluster(GpuResources{});
  const auto left = cluster.add_switch("left");
  const auto right = cluster.add_switch("right \"far\"");
  cluster.connect(left, right, gigabytes_per_second(30), microseconds(0.1));
  for (Rank rank = 0; rank < 5; ++rank) {
    cluster.connect(cluster.add_gpu("gpu"), rank % 2 == 0 ? left : right, gigabytes_per_second(100), Seconds{});
  }
  const Ticks end = simulate(program, cluster).end;
  const auto json = nlohmann::json::parse(trace_of(program, cluster));

  std::map<std::pair<int, int>, Ticks> free_from;
  std::set<std::pair<int, int>> named_tracks;
  std::set<int> named_processes;
  Ticks last = 0;
  int links = 0;
  for (const auto& event : json.at("traceEvents")) {
    const int process = event.at("pid");
    if (event.at("ph") == "M") {
      if (event.at("name") == "process_name") named_processes.insert(process);
      if (event.at("name") == "thread_name") named_tracks.emplace(process, event.at("tid").get<int>());
      continue;
    }
    const int track = event.at("tid");
    const Ticks start = picoseconds(event.at("ts"));
    CHECK(named_processes.count(process) == 1);
    CHECK(named_tracks.count({process, track}) == 1);
    CHECK(start >= free_from[{process, track}]);
    if (event.at("ph") == "i") continue;
    REQUIRE(event.at("ph") == "X");
    CHECK(picoseconds(event.at("dur")) > 0);
    free_from[{process, track}] = start + picoseconds(event.at("dur"));
    last = std::max(last, start + picoseconds(event.at("dur")));
    if (event.at("cat") == "link") {
      ++links;
      CHECK(event.at("args").at("flows") > 0);
      CHECK(event.at("args").at("utilization") <= 1.0001);
    }
  }
  CHECK(last == end);
  CHECK(links > 0);
  CHECK(named_processes.size() == 5 + 1);
}

TEST_CASE("Times are printed with six decimals of a microsecond, and markers are instants") {
  ListProgram program(1);
  program.add(0, compute_op(1'000'007)).add(0, Op{}).add(0, compute_op(5));
  const std::string text = trace_of(program, star(1, gigabytes_per_second(1)));
  CHECK_THAT(text, ContainsSubstring("\"ts\":0.000000,\"dur\":1.000007"));
  CHECK_THAT(text, ContainsSubstring("\"ts\":1.000007,\"dur\":0.000005"));
  CHECK_THAT(text, ContainsSubstring("\"ph\":\"i\",\"s\":\"t\",\"ts\":1.000007"));
  CHECK_THAT(text, ContainsSubstring("\"name\":\"op 2\",\"cat\":\"attention\""));
}

TEST_CASE("Link spans carry every byte of every message") {
  struct Sum : SpanSink {
    void ops(std::span<const Span> spans) override { op_count += spans.size(); }
    void links(std::span<const LinkSpan> spans) override {
      for (const LinkSpan& span : spans) bytes += span.rate.si() * to_seconds(span.end - span.start).si();
    }
    std::size_t op_count = 0;
    double bytes = 0;
  };
  for (const Rank ranks : {2, 7}) {
    Sum sum;
    const Cluster cluster = star(ranks, gigabytes_per_second(3));
    const auto result = simulate(RingProgram(ranks, 2, 1000, bytes(12345)), cluster, &sum);
    double expected = 0;
    for (const LinkTotals& link : result.links) expected += link.bytes.si();
    CHECK_THAT(sum.bytes, WithinRel(expected, 1e-6));
    CHECK(sum.op_count == static_cast<std::size_t>(2 * ranks * (2 * ranks - 1)));
    const auto without = simulate(RingProgram(ranks, 2, 1000, bytes(12345)), cluster);
    CHECK(without.end == result.end);
    CHECK(without.events == result.events);
  }
}

TEST_CASE("A write that fails is an error") {
  const ListProgram program = ListProgram(1).add(0, compute_op(5));
  const Cluster cluster = star(1, gigabytes_per_second(1));
  std::ostringstream out;
  ChromeTrace trace(out, program, cluster);
  out.setstate(std::ios::badbit);
  CHECK_THROWS_WITH(simulate(program, cluster, &trace), ContainsSubstring("disk full"));
}
