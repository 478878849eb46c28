// Slow ranks, jitter and --runs as a user sees them.
#include "cli/runs.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"
#include "tests/scenario_text.hpp"

using namespace orrery;
using Json = nlohmann::json;

namespace {

const std::string data = std::string(ORRERY_SOURCE_DIR) + "/scenarios";
const std::string stragglers = data + "/examples/llama3_8b_128k_stragglers_h200.toml";

/// Nothing varies here, and nothing slows anything else down.
const std::string steady = ScenarioText{.causal = false}.text();

/// The file of a scenario with these keys in [variation].
std::string varied(const ScratchFolder& folder, const std::string& keys) {
  return folder.write("varied.toml", steady + "[variation]\n" + keys + "\n").string();
}

}  // namespace

TEST_CASE("quantiles lie on straight lines between the sorted values") {
  std::vector<double> values(21);
  std::iota(values.rbegin(), values.rend(), 100.0);
  const Quantiles whole = quantiles_of(values);
  CHECK(whole.min == 100);
  CHECK(whole.p05 == 101);
  CHECK(whole.p50 == 110);
  CHECK(whole.p95 == 119);
  CHECK(whole.max == 120);
  CHECK(whole.mean == 110);
  const Quantiles two = quantiles_of({3, 1});
  CHECK(two.p05 == 1 + 0.05 * 2);
  CHECK(two.p50 == 2);
  CHECK(two.p95 == 1 + 0.95 * 2);
  const Quantiles one = quantiles_of({0.1});
  CHECK(one.p05 == 0.1);
  CHECK(one.mean == 0.1);
  CHECK(quantiles_of({0.1, 0.1, 0.1}).mean == 0.1);
}

TEST_CASE("runs give the same bytes from any number of threads, in every format") {
  for (const char* format : {"text", "json", "csv"}) {
    const std::string command = fmt::format("simulate --runs 17 --format {} {} --threads ", format, stragglers);
    const std::string one = output_of(command + "1");
    CHECK_FALSE(one.empty());
    for (const char* threads : {"2", "5", "32"}) CHECK(output_of(command + threads) == one);
  }
}

TEST_CASE("the table of 100 runs in the README is what the program prints") {
  const std::string readme = read_file(std::filesystem::path(ORRERY_SOURCE_DIR) / "README.md");
  const auto begin = readme.find("100 runs, seeds 1 to 100");
  REQUIRE(begin != std::string::npos);
  const std::string table = readme.substr(begin, readme.find("```", begin) - begin);
  const ProgramRun run = run_program(fmt::format("simulate --runs 100 {}", stragglers));
  INFO(run.output);
  CHECK(run.output.find(table) != std::string::npos);
}

TEST_CASE("run i of many is the simulation with the i-th seed after the scenario's") {
  const ScratchFolder folder;
  const Json runs = Json::parse(output_of("simulate --runs 3 --format json " + stragglers));
  CHECK(runs["runs"] == 3);
  CHECK(runs["first_seed"] == 1);
  for (int i = 0; i < 3; ++i) {
    std::string text = read_file(stragglers);
    text.replace(text.find("seed = 1"), 8, fmt::format("seed = {}", 1 + i));
    const Json one = Json::parse(output_of("simulate --format json " + folder.write("one.toml", text).string()));
    CHECK(one["variation"]["jitter"]["seed"] == 1 + i);
    for (const auto& [key, values] : runs["values"].items()) CHECK(values[static_cast<std::size_t>(i)] == one[key]);
  }
  for (const auto& [key, quantiles] : runs["quantiles"].items()) {
    std::vector<double> values = runs["values"][key];
    std::sort(values.begin(), values.end());
    CHECK(quantiles["min"] == values[0]);
    CHECK(quantiles["p50"] == values[1]);
    CHECK(quantiles["max"] == values[2]);
  }
  CHECK(runs["values"]["step_time_s"][0] != runs["values"]["step_time_s"][1]);
}

TEST_CASE("the engines agree on slow ranks and jitter") {
  const ScratchFolder folder;
  const std::string file = varied(folder,
                                  "slow_ranks = [{rank = 3, speed = 0.8}]\n"
                                  "jitter = {distribution = \"exponential\", sigma = 0.1, seed = 5}");
  const auto report = [&](const std::string& engine) {
    Json json = Json::parse(output_of("simulate --format json --engine " + engine + " " + file));
    CHECK(json["engine"] == engine);
    for (const char* key : {"engine", "engine_reason", "events", "wall_s"}) json.erase(key);
    return json;
  };
  CHECK(report("event") == report("dependency"));
  check_refused("simulate --engine lumped " + file, "noise sets ranks apart");
  CHECK(Json::parse(output_of("simulate --runs 4 --format json " + file))["engines"] == Json{{"dependency", 4}});
}

TEST_CASE("a rank at half speed computes twice as long as before, and so does the ring that waits for it") {
  const ScratchFolder folder;
  const Json before = Json::parse(output_of("simulate --format json " + folder.write("steady.toml", steady).string()));
  const Json after =
      Json::parse(output_of("simulate --format json " + varied(folder, "slow_ranks = [{rank = 3, speed = 0.5}]")));
  for (std::size_t rank = 0; rank < 8; ++rank) {
    const double expected = (rank == 3 ? 2 : 1) * before["ranks"][rank]["compute_s"].get<double>();
    CHECK(after["ranks"][rank]["compute_s"].get<double>() == expected);
  }
  CHECK(after["step_time_s"].get<double>() >= after["ranks"][3]["compute_s"].get<double>());
  CHECK_THAT(after["engine_reason"].get<std::string>(), ContainsSubstring("slow ranks set them apart"));
}

TEST_CASE("runs that make no sense are refused with the reason") {
  const ScratchFolder folder;
  check_refused("simulate --runs 10 " + folder.write("steady.toml", steady).string(),
                "steady.toml: --runs needs jitter (without it all runs are the same), add");
  const std::string slow = varied(folder, "slow_ranks = [{rank = 3, speed = 0.5}]");
  check_refused("simulate --runs 10 " + slow, "--runs needs jitter");
  check_refused("simulate --runs 0 " + stragglers, "--runs");
  check_refused("simulate --threads 2 " + stragglers, "--runs");
  check_refused("simulate --runs 2 --trace x.json " + stragglers, "--trace is of one run");
  check_refused("simulate " + varied(folder, "slow_ranks = [{rank = 8, speed = 0.5}]"),
                "varied.toml:23:23: rank = 8 is not in 0 to 7");
}

TEST_CASE("a sweep over seeds and speeds gives what simulate gives") {
  const ScratchFolder folder;
  const std::string space = folder
                                .write("space.toml", "base = \"" + stragglers +
                                                         "\"\n[grid]\nvariation.jitter.seed = [1, 2]\n"
                                                         "variation.slow_ranks.1.speed = [0.9, 0.5]\n")
                                .string();
  const std::string csv = (folder.path() / "out.csv").string();
  output_of("sweep " + space + " -o " + (folder.path() / "out.sqlite").string() + " --csv " + csv);
  const Json runs = Json::parse(output_of("simulate --runs 2 --format json " + stragglers));
  std::istringstream lines(read_file(csv));
  std::string header, line;
  std::getline(lines, header);
  CHECK_THAT(header, ContainsSubstring("variation.jitter.seed") && ContainsSubstring("variation.slow_ranks.1.speed"));
  for (const int run : {0, -1, 1, -1}) {  // -1: another speed
    std::getline(lines, line);
    const std::string time = runs["values"]["step_time_s"][static_cast<std::size_t>(std::max(run, 0))].dump();
    CHECK((line.find("," + time + ",") != std::string::npos) == (run >= 0));
  }
}

namespace {

std::string faulty(const ScratchFolder& folder, const std::string& keys) {
  return folder.write("faulty.toml", steady + "[faults]\n" + keys + "\n").string();
}

}  // namespace

TEST_CASE("a pause of a rank makes a ring that nothing else holds up later by as much, and the report says so") {
  const ScratchFolder folder;
  const Json before = Json::parse(output_of("simulate --format json " + folder.write("steady.toml", steady).string()));
  const std::string file = faulty(folder, "pauses = [{rank = 3, at = \"5 ms\", for = \"2 ms\"}]");
  const Json after = Json::parse(output_of("simulate --format json " + file));
  CHECK_THAT(after["step_time_s"].get<double>() - before["step_time_s"].get<double>(), WithinAbs(2e-3, 1e-12));
  CHECK(after["engine"] == "event");
  CHECK(after["engine_reason"] == "rank 3 pauses at 5 ms");
  CHECK(after["faults"]["pauses"] == Json::parse(R"([{"rank": 3, "at_s": 0.005, "for_s": 0.002}])"));
  CHECK_THAT(output_of("simulate " + file), ContainsSubstring("rank 3 pauses at 5 ms for 2 ms"));
}

TEST_CASE("faults that cannot be simulated are refused with exit status 2") {
  const ScratchFolder folder;
  const auto refused = [&](const std::string& keys, const std::string& words) {
    check_refused("simulate " + faulty(folder, keys), words);
  };
  refused("pauses = [{rank = 3, at = \"5 s\", for = \"2 ms\"}]",
          "faulty.toml:23:27: at = 5 s is beyond the run (it ends");
  refused("links = [{link = \"gpu3 -> nvswitch\", at = \"1 ms\", dead = true, then = \"reroute\"}]",
          "faulty.toml:23:10: there is no way around link gpu3 -> nvswitch at 1 ms");
  refused(
      "links = [{link = \"gpu33 -> nvswitch\", at = \"1 ms\", dead = true, then = \"stall\"}]",
      "faulty.toml:23:18: there is no link \"gpu33 -> nvswitch\" in this cluster, did you mean \"gpu3 -> nvswitch\"?");
  const ProgramRun stalled = run_program(
      "simulate " +
      faulty(folder, "links = [{link = \"gpu3 -> nvswitch\", at = \"1 ms\", dead = true, then = \"stall\"}]"));
  CHECK(stalled.exit_code == 2);
  CHECK(stalled.output.empty());
  CHECK_THAT(stalled.error, ContainsSubstring("waits for link gpu3 -> nvswitch, which is dead since 1 ms"));
}
