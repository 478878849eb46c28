// The program as a whole: formats, exit codes, where output goes.
#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;

namespace {
const std::string example = std::string(ORRERY_SOURCE_DIR) + "/scenarios/examples/llama3_8b_128k_ring_h200.toml";
}

TEST_CASE("JSON: --format json prints JSON with the promised keys on standard output and nothing else anywhere") {
  const ProgramRun run = run_program("simulate --format json " + example);
  CHECK(run.exit_code == 0);
  CHECK(run.error.empty());
  const auto json = nlohmann::json::parse(run.output);
  for (const char* key :
       {"step_time_s", "compute_s", "comm_s", "exposed_comm_s", "overlap_fraction", "bytes_sent_per_rank",
        "useful_flops", "executed_flops", "mfu", "imbalance", "events", "wall_s"}) {
    CHECK(json[key].is_number());
  }
  // compute + exposed_comm + idle = step time, on the average and for each rank.
  const auto sum = [](const nlohmann::json& j) {
    return j["compute_s"].get<double>() + j["exposed_comm_s"].get<double>() + j["idle_s"].get<double>();
  };
  CHECK_THAT(sum(json), WithinRel(json["step_time_s"].get<double>(), 1e-12));
  for (const auto& rank : json["ranks"]) CHECK_THAT(sum(rank), WithinRel(json["step_time_s"].get<double>(), 1e-12));
}

TEST_CASE("CSV: --format csv prints a header and one row of as many cells") {
  const ProgramRun run = run_program("simulate --format csv " + example);
  CHECK(run.exit_code == 0);
  const std::size_t end = run.output.find('\n');
  const std::string header = run.output.substr(0, end), row = run.output.substr(end + 1);
  CHECK(std::count(header.begin(), header.end(), ',') == std::count(row.begin(), row.end(), ','));
  CHECK_THAT(header, ContainsSubstring("step_time_s,compute_s"));
}

TEST_CASE("the text report says the step time, the critical path and what it rests on") {
  const ProgramRun run = run_program("simulate " + example);
  CHECK(run.exit_code == 0);
  for (const char* part : {"step time", "critical path", "this rests on", "measured", "left out", "c >= F/B"}) {
    CHECK_THAT(run.output, ContainsSubstring(part));
  }
}

TEST_CASE("list prints every table, and one when asked") {
  const ProgramRun all = run_program("list");
  CHECK(all.exit_code == 0);
  for (const char* name : {"double_ring", "zigzag", "fat_tree", "h200_sxm", "infiniband_ndr", "llama3_405b",
                           "transformer_engine_p2p", "lwm_7b_1m_ring"}) {
    CHECK_THAT(all.output, ContainsSubstring(name));
  }
  CHECK(run_program("list layouts").output.size() < all.output.size() / 10);
}

TEST_CASE("a trace is written where asked, and a report all the same") {
  const TemporaryFolder folder;
  const std::string trace = (folder.path() / "trace.json").string();
  const ProgramRun run = run_program("simulate --format json --trace " + trace + " " + example);
  CHECK(run.exit_code == 0);
  CHECK(nlohmann::json::parse(run.output).contains("step_time_s"));
  CHECK(nlohmann::json::parse(read_file(trace))["traceEvents"].size() > 100);
}

TEST_CASE("whatever the user mistypes ends with exit code 2, one message on standard error, and no output") {
  for (const std::string& arguments :
       {std::string(), std::string("simulat ") + example, std::string("simulate"), std::string("simulate nowhere.toml"),
        "simulate --format xml " + example, "simulate --trace /nowhere/trace.json " + example,
        "simulate " + std::string(ORRERY_SOURCE_DIR), std::string("list gpuz"),
        "simulate " + example + " " + example}) {
    INFO(arguments);
    const ProgramRun run = run_program(arguments);
    CHECK(run.exit_code == 2);
    CHECK(run.output.empty());
    CHECK_FALSE(run.error.empty());
  }
}

TEST_CASE("a full disk is an error, not a short report") {
  const ProgramRun run = run_program("simulate --trace /dev/full " + example);
  CHECK(run.exit_code == 2);
  CHECK(run.output.empty());
}
