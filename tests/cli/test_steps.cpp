// Whole steps and the search for clusters, as a user runs them.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/report_writers.hpp"
#include "scenarios/step_scenario.hpp"
#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;
namespace fs = std::filesystem;

namespace {

const std::string small = "size --model llama3_8b --context 32K --pass train --gpu h100_sxm --max-gpus 8 ";

std::string error_of(const std::string& arguments) {
  const ProgramRun run = run_program(arguments);
  CHECK(run.exit_code == 2);
  CHECK(run.output.empty());
  CHECK(std::count(run.error.begin(), run.error.end(), '\n') == 1);
  return run.error;
}

}  // namespace

TEST_CASE("the report of every whole step is the golden one") {
  const bool update = std::getenv("ORRERY_UPDATE_GOLDEN") != nullptr;
  for (const auto& entry : fs::directory_iterator(fs::path(ORRERY_SOURCE_DIR) / "scenarios/steps")) {
    INFO(entry.path().filename().string());
    const Scenario scenario = load_scenario(entry.path());
    const StepProgram program = build_step(scenario);
    const Report report = summarize(scenario, program, simulate(program, scenario.cluster), 0);
    const std::string csv = csv_report(scenario, report), text = text_report(scenario, report);
    const fs::path golden = fs::path(ORRERY_SOURCE_DIR) / "tests/golden_steps" / (scenario.name + ".txt");
    if (update) std::ofstream(golden, std::ios::binary) << csv << '\n' << text;
    CHECK(csv + '\n' + text == read_file(golden));
  }
}

TEST_CASE("size prints the best, the smallest, the front, what would help and what it counted") {
  const ProgramRun run = run_program(small + "--price h100_sxm=2");
  CHECK(run.exit_code == 0);
  CHECK(run.error.empty());
  for (const char* part : {"best: step", "cost", "smallest cluster that fits", "Pareto front", "what would help",
                           "infiniband_ndr", "limited by", "bounded away", "assumed"}) {
    CHECK_THAT(run.output, ContainsSubstring(part));
  }
  const auto json = nlohmann::json::parse(run_program(small + "--format json").output);
  CHECK(json["candidates"].get<int>() ==
        json["too_large"].get<int>() + json["bounded_away"].get<int>() + json["simulated"].get<int>());
  for (const auto& best : json["best"]) CHECK(best["bound_s"].get<double>() <= best["step_time_s"].get<double>());
}

TEST_CASE("a size that cannot be says in one sentence what is wrong and what to do") {
  CHECK_THAT(error_of(small + "--target step=1ms"),
             ContainsSubstring("no cluster up to 8 GPUs meets step=1ms; the best found takes"));
  CHECK_THAT(error_of("size --model llama3_405b --context 128K --pass train --gpu h100_sxm --max-gpus 8"),
             ContainsSubstring("no cluster up to 8 GPUs holds it"));
  CHECK_THAT(error_of(small + "--objective cost"), ContainsSubstring("needs the price of h100_sxm"));
  CHECK_THAT(error_of(small + "--price a100=2"), ContainsSubstring("--price names a100"));
  CHECK_THAT(error_of(small + "--price h100_sxm=free"), ContainsSubstring("not a positive number"));
  CHECK_THAT(error_of(small + "--target speed=3"), ContainsSubstring("--target \"speed=3\" is not known"));
  CHECK_THAT(error_of(small + "--attention pi:k=8"), ContainsSubstring("--attention pi needs period"));
  CHECK_THAT(error_of(small + "--attention star"), ContainsSubstring("is not known"));
  CHECK_THAT(error_of("size --model llama4 --context 32K --pass train"), ContainsSubstring("llama4"));
  CHECK_THAT(error_of("size --model llama3_8b --context many --pass train"), ContainsSubstring("many"));
  CHECK_THAT(error_of("size --model llama3_8b --context 32K --pass train --gpu tpu_v4"), ContainsSubstring("torus"));
}

TEST_CASE("degrees of parallelism that contradict each other are named") {
  const fs::path file = fs::path(ORRERY_SOURCE_DIR) / "scenarios/steps/llama3_70b_8k_3d_h100.toml";
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = read_file(file);
    text.replace(text.find(from), from.size(), to);
    const TemporaryFolder folder;
    return error_of("simulate " + folder.write("x.toml", text).string());
  };
  CHECK_THAT(edited("data_parallel = 2", "data_parallel = 3"), ContainsSubstring("does not divide ranks = 64"));
  CHECK_THAT(edited("virtual_stages = 2", "virtual_stages = 3"), ContainsSubstring("80 layers cannot be dealt out"));
  CHECK_THAT(edited("microbatches = 8", "microbatches = 3"), ContainsSubstring("microbatches"));
  CHECK_THAT(edited("zero = 1", "zero = 4"), ContainsSubstring("zero = 4 is not in 0 to 3"));
  CHECK_THAT(edited("recompute = \"none\"", "recompute = \"some\""),
             ContainsSubstring("none, selective, blocks, full"));
}
