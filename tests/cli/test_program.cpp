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
    CHECK(run.error.starts_with("orrery: "));
    CHECK(std::count(run.error.begin(), run.error.end(), '\n') == 1);
  }
}

TEST_CASE("a mistyped command or option is named beside the nearest that exists") {
  CHECK_THAT(run_program("simlate " + example).error,
             ContainsSubstring("there is no command simlate, did you mean \"simulate\"?"));
  for (const char* option : {"--fromat json", "--fromat=json"}) {
    CHECK_THAT(run_program(std::string("simulate ") + option + " " + example).error,
               ContainsSubstring("orrery: simulate has no option --fromat, did you mean \"--format\"?"));
  }
}

TEST_CASE("an output that cannot be written is an error before anything is printed") {
  const std::string measured = std::string(ORRERY_SOURCE_DIR) + "/validate/measured/h200_sxm/";
  const std::string pi = "reach --pattern pi --k 4 --pi 16 --layers 4 --n 256 ";
  for (const std::string& arguments :
       {pi + "--plot /nowhere/x.svg", "simulate --trace /nowhere/trace.json " + example,
        "fit " + measured + "gemm.csv -o /nowhere/profile.toml",
        "validate --measured " + measured + "gemm.csv --plot /nowhere/x.svg",
        "validate --steps " + measured + "../h200_sxm_x2/ring_steps.csv --trace /nowhere/trace.json"}) {
    INFO(arguments);
    const ProgramRun run = run_program(arguments);
    CHECK(run.exit_code == 2);
    CHECK(run.output.empty());
    CHECK_THAT(run.error, ContainsSubstring("/nowhere/") && ContainsSubstring("cannot be written"));
  }
}

TEST_CASE("a program too long to wait for is refused with its limit, unless an engine is named") {
  const TemporaryFolder folder;
  // Contiguous and causal: no two ranks are alike, 65536^2 steps of a rank in one layer.
  std::string text = read_file(example);
  for (const auto& [what, with] :
       {std::pair("ranks = 8", "ranks = 65536"), std::pair("tokens = \"128K\"", "tokens = \"64M\"")}) {
    REQUIRE(text.find(what) != std::string::npos);
    text.replace(text.find(what), std::string(what).size(), with);
  }
  const ProgramRun run = run_program("simulate " + folder.write("huge.toml", text).string());
  CHECK(run.exit_code == 2);
  CHECK(run.output.empty());
  CHECK_THAT(run.error, ContainsSubstring("this program is too long") && ContainsSubstring("at most 2.1e+09"));
}

TEST_CASE("a mistyped command line says where its help is") {
  CHECK_THAT(run_program("simulate --format xml " + example).error, ContainsSubstring("see orrery simulate --help"));
  CHECK_THAT(run_program("simulat").error, ContainsSubstring("see orrery --help"));
}

TEST_CASE("a trace without a name or with that of the scenario is refused before anything is written") {
  const TemporaryFolder folder;
  const std::string text = read_file(example);
  const std::string copy = folder.write("copy.toml", text).string();
  const ProgramRun unnamed = run_program("simulate --trace '' " + example);
  CHECK(unnamed.exit_code == 2);
  CHECK_THAT(unnamed.error, ContainsSubstring("--trace is empty"));
  std::filesystem::create_symlink(copy, folder.path() / "link.toml");
  for (const std::string& name : {copy, (folder.path() / "link.toml").string()}) {
    const ProgramRun same = run_program("simulate --trace " + name + " " + copy);
    CHECK(same.exit_code == 2);
    CHECK_THAT(same.error, ContainsSubstring("names the scenario itself"));
    CHECK(read_file(copy) == text);
  }
}

TEST_CASE("a simulation that fails leaves no trace and keeps the one that was there") {
  const TemporaryFolder folder;
  const std::string trace = folder.write("trace.json", "before").string();
  // A billionth of a FLOP per second: the first kernel takes longer than 2^63 ps.
  const std::string gpu =
      "kind = \"gpu\"\ndescription = \"d\"\nsource = \"s\"\nhbm_bandwidth = \"4 TB/s\"\n"
      "hbm_capacity = \"1 GB\"\nsms = 132\nlinks = [\"nvlink4\"]\n[peak]\nbf16 = \"1e-9 FLOP/s\"\n";
  folder.write("slow.toml", gpu);
  std::string text = read_file(example);
  const std::string hardware = "\"h200_sxm\"\nprofile = \"h200_sxm\"";
  REQUIRE(text.find(hardware) != std::string::npos);
  text.replace(text.find(hardware), hardware.size(), "\"./slow.toml\"\nprofile = \"peak\"");
  const std::string scenario = folder.write("scenario.toml", text).string();
  const ProgramRun run = run_program("simulate --trace " + trace + " " + scenario);
  CHECK(run.exit_code == 2);
  CHECK_THAT(run.error,
             ContainsSubstring("attention of layer 1, forward step 0, would take") && ContainsSubstring("106 days"));
  CHECK(read_file(trace) == "before");
  const auto files = std::filesystem::directory_iterator(folder.path());
  CHECK(std::distance(begin(files), end(files)) == 3);
}

TEST_CASE("a scenario whose name is not UTF-8 gives valid JSON all the same") {
  const TemporaryFolder folder;
  const std::string file = folder.write("caf\xe9.toml", read_file(example)).string();
  for (const char* format : {"json", "csv", "text"}) {
    CHECK(run_program(std::string("simulate --format ") + format + " '" + file + "'").exit_code == 0);
  }
  const ProgramRun run = run_program("simulate --format json '" + file + "'");
  CHECK(nlohmann::json::parse(run.output)["scenario"] == "caf\xef\xbf\xbd");
}

TEST_CASE("a full disk is an error, not a short report") {
  const ProgramRun run = run_program("simulate --trace /dev/full " + example);
  CHECK(run.exit_code == 2);
  CHECK(run.output.empty());
}
