// Every example: its report is the golden one, and the laws that hold for every simulation hold.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/report_writers.hpp"
#include "sim/chrome_trace.hpp"
#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;
namespace fs = std::filesystem;

namespace {

std::vector<fs::path> examples() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(fs::path(ORRERY_SOURCE_DIR) / "scenarios/examples")) {
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// Keeps what the laws below are about.
class Laws : public SpanSink {
 public:
  explicit Laws(const Cluster& cluster) : cluster_(cluster) {}

  void ops(std::span<const Span> spans) override {
    for (const Span& span : spans) {
      Ticks& last_end = stream_end_[{span.rank, span.stream}];
      in_order = in_order && span.start >= last_end && span.end >= span.start;
      last_end = span.end;
    }
  }
  void links(std::span<const LinkSpan> spans) override {
    for (const LinkSpan& span : spans) {
      const BytesPerSecond most = cluster_.links()[static_cast<std::size_t>(span.link)].bandwidth;
      within_capacity = within_capacity && span.rate.si() <= most.si() * (1 + 1e-12);
    }
  }

  bool in_order = true;
  bool within_capacity = true;

 private:
  const Cluster& cluster_;
  std::map<std::pair<Rank, Stream>, Ticks> stream_end_;
};

}  // namespace

TEST_CASE("ranks that compute equally long are balanced exactly") {
  const ScratchFolder folder;
  std::string text = read_file(fs::path(ORRERY_SOURCE_DIR) / "scenarios/examples/llama3_8b_128k_ring_h200.toml");
  const auto with = [&](const std::string& what, const std::string& value) {
    const std::size_t at = text.find(what);
    REQUIRE(at != std::string::npos);
    text.replace(at, text.find('\n', at) - at, what + value);
  };
  with("causal = ", "false");
  for (const int ranks : {3, 5, 6, 7, 11, 13, 24}) {
    INFO(ranks << " ranks");
    with("ranks = ", std::to_string(ranks));
    with("tokens = ", std::to_string(ranks * 1000));
    const Scenario scenario = load_scenario(folder.write("equal.toml", text));
    const AttentionProgram program = build_program(scenario);
    CHECK(summarize(scenario, program, {simulate(program, scenario.cluster), std::nullopt}, 0).imbalance == 1.0);
  }
}

// Golden files are for change: a commit that changes one says why. ORRERY_UPDATE_GOLDEN=1 writes them anew.
TEST_CASE("the report of every example is the golden one") {
  const bool update = std::getenv("ORRERY_UPDATE_GOLDEN") != nullptr;
  for (const fs::path& file : examples()) {
    INFO(file.filename().string());
    const Scenario scenario = load_scenario(file);
    Report report = predict(scenario);
    report.wall_s = 0;
    const std::string json = json_report(scenario, report);
    const fs::path golden = fs::path(ORRERY_SOURCE_DIR) / "tests/golden" / (scenario.name + ".json");
    if (update) std::ofstream(golden, std::ios::binary) << json;
    CHECK(json == read_file(golden));
  }
}

TEST_CASE("every golden file has its example") {
  for (const auto& entry : fs::directory_iterator(fs::path(ORRERY_SOURCE_DIR) / "tests/golden")) {
    INFO(entry.path().string());
    CHECK(fs::exists(fs::path(ORRERY_SOURCE_DIR) / "scenarios/examples" / (entry.path().stem().string() + ".toml")));
  }
}

TEST_CASE("the laws of every simulation hold for every example") {
  for (const fs::path& file : examples()) {
    INFO(file.filename().string());
    const Scenario scenario = load_scenario(file);
    const AttentionProgram program = build_program(scenario);
    Laws laws(scenario.cluster);
    const SimulationResult result = simulate(program, scenario, {.sink = &laws});
    CHECK(laws.in_order);
    CHECK(laws.within_capacity);
    Bytes sent, received;
    for (std::size_t r = 0; r < result.ranks.size(); ++r) {
      const RankTotals& rank = result.ranks[r];
      CHECK(rank.compute + rank.exposed_comm + rank.idle == result.end);
      CHECK(rank.comm >= rank.exposed_comm);
      for (const Ticks busy : rank.stream_busy) CHECK(busy <= result.end);
      CHECK(rank.sent.si() == program.work_of(static_cast<Rank>(r)).sent.si());
      sent += rank.sent;
      received += rank.received;
    }
    CHECK(sent.si() == received.si());
    Ticks path = result.critical_path.contention + result.critical_path.launch;
    for (const Ticks part : result.critical_path.by_category) path += part;
    CHECK(path == result.end);
  }
}

// Where nothing is shared a program is a set of orders between ops, and shorter ops end no later. Where SMs, HBM or
// links are shared the same ops in another alignment may lose more (Graham's anomalies), yet no more than is reported:
// the critical path without its contention is a chain that the slower links had to go through as well.
TEST_CASE("links of twice the bandwidth slow an example at most by the contention on its critical path") {
  for (const fs::path& file : examples()) {
    INFO(file.filename().string());
    Scenario scenario = load_scenario(file);
    const Ticks before = simulate(build_program(scenario), scenario.cluster).end;
    scenario.cluster.scale_bandwidth(2.0);
    const SimulationResult after = simulate(build_program(scenario), scenario.cluster);
    CHECK(after.end <= before + after.critical_path.contention);
    CHECK(after.end <= before + before / 1000);
  }
}

TEST_CASE("links of twice the bandwidth never slow an example whose compute shares neither SMs nor HBM") {
  for (const fs::path& file : examples()) {
    INFO(file.filename().string());
    Scenario scenario = load_scenario(file);
    Cluster cluster = scenario.cluster.with_gpu({0, BytesPerSecond::from_si(std::numeric_limits<double>::infinity())});
    const Ticks before = simulate(build_program(scenario), cluster).end;
    cluster.scale_bandwidth(2.0);
    CHECK(simulate(build_program(scenario), cluster).end <= before);
  }
}

TEST_CASE("a trace is JSON whose events do not overlap on any track") {
  for (const char* name : {"llama3_8b_128k_zigzag_h200", "llama2_7b_1m_pi_all", "llama3_8b_256k_usp_2nodes"}) {
    INFO(name);
    const Scenario scenario =
        load_scenario(fs::path(ORRERY_SOURCE_DIR) / "scenarios/examples" / (std::string(name) + ".toml"));
    const AttentionProgram program = build_program(scenario);
    std::ostringstream out;
    ChromeTrace trace(out, program, scenario.cluster);
    simulate(program, scenario.cluster, &trace);
    trace.finish();
    const auto json = nlohmann::json::parse(out.str());
    std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> tracks;
    for (const auto& event : json["traceEvents"]) {
      if (event["ph"] == "X") tracks[{event["pid"], event["tid"]}].emplace_back(event["ts"], event["dur"]);
    }
    CHECK(tracks.size() > static_cast<std::size_t>(scenario.ranks()));
    bool overlap = false;
    for (auto& [track, events] : tracks) {
      std::sort(events.begin(), events.end());
      for (std::size_t i = 1; i < events.size(); ++i)
        overlap |= events[i - 1].first + events[i - 1].second > events[i].first + 2e-6;
    }
    CHECK_FALSE(overlap);
  }
}
