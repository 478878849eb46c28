// Whole steps and claims, as a user runs them.
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/report_writers.hpp"
#include "scenarios/step_scenario.hpp"
#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;
namespace fs = std::filesystem;

TEST_CASE("the report of every whole step is the golden one") {
  const bool update = std::getenv("ORRERY_UPDATE_GOLDEN") != nullptr;
  for (const auto& entry : fs::directory_iterator(fs::path(ORRERY_SOURCE_DIR) / "scenarios/steps")) {
    INFO(entry.path().filename().string());
    const Scenario scenario = load_scenario(entry.path());
    Report report = predict(scenario);
    report.wall_s = 0;
    const std::string csv = csv_report(scenario, report), text = text_report(scenario, report);
    const fs::path golden = fs::path(ORRERY_SOURCE_DIR) / "tests/golden_steps" / (scenario.name + ".txt");
    if (update) std::ofstream(golden, std::ios::binary) << csv << '\n' << text;
    CHECK(csv + '\n' + text == read_file(golden));
  }
}

TEST_CASE("claims print their line and curve, and are refused with one sentence") {
  const ProgramRun flops = run_program("claim pi_fewer_flops");
  CHECK(flops.exit_code == 0);
  CHECK_THAT(flops.output, ContainsSubstring("assumed") && ContainsSubstring("      1024       74         2048"));
  const auto json = nlohmann::json::parse(run_program("claim pi_fewer_flops --format json").output);
  for (const auto& row : json["line"]) {
    const double n = row["tokens"], h = row["hidden"], w = row["keys"];
    CHECK_THAT((n - w) / (6 * h + n), WithinRel(0.241, 1e-9));
  }

  const fs::path file = fs::path(ORRERY_SOURCE_DIR) / "scenarios/claims/pi_half_the_gpus.toml";
  const ScratchFolder folder;
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = read_file(file);
    text.replace(text.find(from), from.size(), to);
    return folder.write("x.toml", text).string();
  };
  const std::string small_one =
      edited(R"(["32K", "64K", "128K", "256K", "512K", "1M", "2M", "4M"])", R"(["32K", "64K"])");
  const ProgramRun gpus = run_program("claim --format json " + small_one);
  INFO(gpus.error);
  REQUIRE(gpus.exit_code == 0);
  const nlohmann::json claim = nlohmann::json::parse(gpus.output);
  for (const auto& row : claim["curve"]) {
    CHECK(row["holds"]["exact_gpus"].get<int>() >= 1);
    CHECK(row["keeps_up"].size() == 2);
  }
  check_refused("claim nothing", "nothing");
  check_refused("claim " + edited("fewer = 0.5", "fewer = 50"), "not in 0 to 1");
  check_refused("claim " + edited("k = 1024 ", "kk = 1024 "), "k");
  check_refused("claim " + edited("claim = \"gpus\"", "claim = \"speed\""), "flops, gpus");
}

TEST_CASE("JSON and page name the stage at the peak by the same number, as the memory over time does") {
  const ScratchFolder folder;
  const std::string out = (folder.path() / "m.csv").string();
  const std::string step = std::string(ORRERY_SOURCE_DIR) + "/scenarios/steps/llama3_70b_8k_3d_h100.toml";
  const auto memory = nlohmann::json::parse(run_program("simulate --format json " + step).output)["memory"];
  const std::string stage = memory["stage"].dump(), visit = memory["peak_at"];
  CHECK_THAT(run_program("simulate --memory " + out + " " + step).output,
             ContainsSubstring("at the peak: stage " + stage + ", " + visit));
  // A line is stage, rank, start, end, "visit", total, ...
  std::istringstream lines(read_file(out));
  bool found = false;
  for (std::string line; std::getline(lines, line);) {
    found = found || (line.starts_with(stage + ",") &&
                      line.find(fmt::format("\"{}\",{:.0f},", visit, memory["peak_bytes"].get<double>())) != line.npos);
  }
  CHECK(found);
}

TEST_CASE("the memory of a step over time is a CSV file whose parts add up") {
  const ScratchFolder folder;
  const std::string out = (folder.path() / "m.csv").string();
  const std::string step = std::string(ORRERY_SOURCE_DIR) + "/scenarios/steps/llama3_8b_8k_fsdp_64.toml";
  const ProgramRun run = run_program("simulate --format json --memory " + out + " " + step);
  REQUIRE(run.exit_code == 0);
  std::istringstream lines(read_file(out));
  std::string line;
  std::getline(lines, line);
  CHECK(line.starts_with("stage,rank,start_s,end_s,visit,total_bytes,parameters_bytes"));
  double peak = 0;
  while (std::getline(lines, line)) {
    const std::size_t quote = line.rfind('"');  // the visit has a comma in it
    std::istringstream numbers(line.substr(quote + 2));
    std::vector<double> values;
    for (std::string cell; std::getline(numbers, cell, ',');) values.push_back(std::stod(cell));
    REQUIRE(values.size() == 1 + static_cast<std::size_t>(memory_parts));
    double sum = 0;
    for (std::size_t i = 1; i < values.size(); ++i) sum += values[i];
    CHECK_THAT(values[0], WithinAbs(sum, memory_parts));
    peak = std::max(peak, values[0]);
  }
  const auto json = nlohmann::json::parse(run.output);
  CHECK_THAT(json["memory"]["peak_bytes"].get<double>(), WithinRel(peak, 1e-9));
  // Its loss is not fused: the logits are what fills it.
  CHECK_THAT(json["memory"]["peak_at"].get<std::string>(), ContainsSubstring("after the layers"));
  const std::string ring = std::string(ORRERY_SOURCE_DIR) + "/scenarios/examples/lwm_7b_1m_ring.toml";
  check_refused("simulate --memory " + out + " " + ring, "follows a whole step");
  check_refused("simulate --memory " + step + " " + step, "names the scenario itself");
  check_refused("simulate --memory /nowhere/m.csv " + step, "/nowhere/m.csv");
}

TEST_CASE("degrees of parallelism that contradict each other are named") {
  const fs::path file = fs::path(ORRERY_SOURCE_DIR) / "scenarios/steps/llama3_70b_8k_3d_h100.toml";
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = read_file(file);
    text.replace(text.find(from), from.size(), to);
    const ScratchFolder folder;
    return refusal_of("simulate " + folder.write("x.toml", text).string());
  };
  CHECK_THAT(edited("data_parallel = 2", "data_parallel = 3"), ContainsSubstring("does not divide ranks = 64"));
  CHECK_THAT(edited("virtual_stages = 2", "virtual_stages = 3"), ContainsSubstring("80 layers cannot be dealt out"));
  CHECK_THAT(edited("microbatches = 8", "microbatches = 3"), ContainsSubstring("microbatches"));
  CHECK_THAT(edited("zero = 1", "zero = 4"), ContainsSubstring("zero = 4 is not in 0 to 3"));
  CHECK_THAT(edited("scope =", "matrix_dtype = \"fp4\"\nscope ="), ContainsSubstring("fp8, bf16"));
  CHECK_THAT(edited("dtype = \"bf16\"", "dtype = \"fp32\"\nmatrix_dtype = \"fp8\""),
             ContainsSubstring("beside 16-bit attention"));
  CHECK_THAT(edited("recompute = \"none\"", "recompute = \"some\""),
             ContainsSubstring("none, selective, blocks, full"));
}
