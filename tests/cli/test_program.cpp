// The program as a whole: formats, exit codes, where output goes.
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/report_writers.hpp"
#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;
using Catch::Matchers::StartsWith;

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
  CHECK_THAT(header,
             ContainsSubstring("step_time_s,step_time_low_s,step_time_high_s,step_time_extrapolated,compute_s"));
  // A cell with a comma in it is quoted.
  const std::string skips = std::string(ORRERY_SOURCE_DIR) + "/scenarios/examples/llama2_7b_1m_pi_count1.toml";
  CHECK_THAT(run_program("simulate --format csv " + skips).output,
             ContainsSubstring(",\"window(left 1024) + stride(16384, count 1)\","));
}

TEST_CASE("the text report says the step time, the critical path and what it rests on") {
  const ProgramRun run = run_program("simulate " + example);
  CHECK(run.exit_code == 0);
  for (const char* part : {"step time", "critical path", "this rests on", "measured", "left out", "c >= F/B"}) {
    CHECK_THAT(run.output, ContainsSubstring(part));
  }
}

namespace {

/// The words of the first line of `page` that begins with `name`.
std::string line_of(const std::string& page, const std::string& name) {
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    line.erase(0, line.find_first_not_of(' '));
    if (!line.starts_with(name)) continue;
    std::istringstream words(line.substr(name.size()));
    std::string all;
    for (std::string word; words >> word;) all += (all.empty() ? "" : " ") + word;
    return all;
  }
  return "no such line";
}

}  // namespace

TEST_CASE("every number of the text report stands on its line") {
  const Scenario scenario = load_scenario(example);
  Report r;
  r.step_time = Seconds::from_si(10);
  r.compute = Seconds::from_si(5);
  r.exposed_comm = Seconds::from_si(3);
  r.idle = Seconds::from_si(2);
  r.comm = Seconds::from_si(4);
  r.overlap_fraction = 0.25;
  r.useful = Flops::from_si(8e12);
  r.executed = Flops::from_si(10e12);
  r.mfu = 0.125;
  r.imbalance = 1.5;
  r.sent_by_busiest_rank = Bytes::from_si(6e9);
  r.sent_in_all = Bytes::from_si(7e9);
  r.phases = {{"forward", Seconds(), Seconds::from_si(4), Seconds::from_si(1), Seconds::from_si(2)},
              {"backward", Seconds::from_si(4), Seconds::from_si(10), Seconds::from_si(3), Seconds::from_si(0.5)}};
  r.critical_path = {{"attention", Seconds::from_si(9), 0.9}, {"contention", Seconds::from_si(1), 0.1}};
  for (int i = 0; i < 9; ++i) {  // one more than are shown
    r.ranks.push_back({Seconds::from_si(i),
                       Seconds(),
                       Seconds::from_si(10 + i),
                       Seconds::from_si(20 + i),
                       Bytes::from_si(1e9 * i),
                       Bytes(),
                       Flops(),
                       Flops(),
                       {}});
  }
  r.links = {{"slow", Bytes::from_si(1e9), Seconds::from_si(1), 0.05},
             {"busy", Bytes::from_si(2e9), Seconds::from_si(8), 0.7}};
  Intensity hop;
  hop.tokens = 1000;
  hop.bytes = Bytes::from_si(1e9);
  hop.link_rate = BytesPerSecond::from_si(1e9);
  hop.flops = Flops::from_si(2e12);
  hop.compute_rate = FlopsPerSecond::from_si(1e12);
  r.intensity.hops = {hop};
  const std::string page = text_report(scenario, r);
  CHECK(line_of(page, "step time") == "10 s");
  CHECK(line_of(page, "forward  ") == "4 s compute 1 s and transfers 2 s per rank");
  CHECK(line_of(page, "backward ") == "6 s compute 3 s and transfers 500 ms per rank");
  CHECK(line_of(page, "compute ") == "5 s 50.0 %");
  CHECK_THAT(line_of(page, "exposed comm "), StartsWith("3 s 30.0 %"));
  CHECK_THAT(line_of(page, "idle "), StartsWith("2 s 20.0 %"));
  CHECK_THAT(line_of(page, "comm "), StartsWith("4 s 40.0 %"));
  CHECK_THAT(line_of(page, "overlap "), StartsWith("25.0 %"));
  CHECK(line_of(page, "useful FLOPs") == "8 TFLOP executed 10 TFLOP (25.0 % more)");
  CHECK_THAT(line_of(page, "MFU"), StartsWith("12.5 %"));
  CHECK_THAT(line_of(page, "imbalance"), StartsWith("1.500"));
  CHECK(line_of(page, "sent per rank") == "6 GB at most; 7 GB in all");
  CHECK(line_of(page, "c >= F/B") ==
        "yes forward: a hop takes 1 s (B = 1 GB/s), the attention beside it 2 s (F = 1 TFLOP/s)");
  CHECK(line_of(page, "c = ") == "1000 tokens per block, 500 needed");
  CHECK(line_of(page, "attention   ") == "9 s 90.0 %");
  CHECK(line_of(page, "contention") == "1 s 10.0 %");
  for (const int shown : {1, 2, 3, 5, 6, 7, 8}) {
    CHECK(line_of(page, std::to_string(shown) + "   ") == std::to_string(shown) + " s " + std::to_string(10 + shown) +
                                                              " s " + std::to_string(20 + shown) + " s " +
                                                              std::to_string(shown) + " GB");
  }
  CHECK(line_of(page, "4   ") == "no such line");
  CHECK(line_of(page, "busy ") == "2 GB 80.0 % 70.0 %");
  CHECK(page.find("busy  ") < page.find("slow  "));
  // The same hop with attention half as long as it.
  r.intensity.hops[0].flops = Flops::from_si(0.5e12);
  CHECK_THAT(line_of(text_report(scenario, r), "c >= F/B"), StartsWith("no forward"));
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
  const ScratchFolder folder;
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
    refusal_of(arguments);
  }
}

TEST_CASE("a mistyped command or option is named beside the nearest that exists, and one given too often") {
  CHECK_THAT(run_program("simlate " + example).error,
             ContainsSubstring("there is no command simlate, did you mean \"simulate\"?"));
  for (const char* option : {"--fromat json", "--fromat=json"}) {
    CHECK_THAT(run_program(std::string("simulate ") + option + " " + example).error,
               ContainsSubstring("orrery: simulate has no option --fromat, did you mean \"--format\"?"));
  }
  CHECK_THAT(run_program("size --model llama3_8b --context 8K --pass train --gpu h100_sxm --gpu h200_sxm").error,
             ContainsSubstring("orrery: --gpu has 2 values (it takes 1), see orrery size --help"));
}

TEST_CASE("an output that cannot be written is an error before anything is printed") {
  const std::string measured = std::string(ORRERY_SOURCE_DIR) + "/validate/measured/h200_sxm/";
  const std::string pi = "reach --pattern pi --k 4 --pi 16 --layers 4 --n 256 ";
  for (const std::string& arguments :
       {pi + "--plot /nowhere/x.svg", "simulate --trace /nowhere/trace.json " + example,
        "fit " + measured + "gemm.csv -o /nowhere/profile.toml",
        "validate --measured " + measured + "gemm.csv --plot /nowhere/x.svg",
        "validate --steps " + measured + "../h200_sxm_x2/ring_steps.csv --trace /nowhere/trace.json"}) {
    CHECK_THAT(refusal_of(arguments), ContainsSubstring("/nowhere/") && ContainsSubstring("cannot be written"));
  }
}

TEST_CASE("a program too long to wait for is refused with its limit, unless an engine is named") {
  const ScratchFolder folder;
  // Contiguous and causal: no two ranks are alike, 65536^2 steps of a rank in one layer.
  std::string text = read_file(example);
  for (const auto& [what, with] :
       {std::pair("ranks = 8", "ranks = 65536"), std::pair("tokens = \"128K\"", "tokens = \"64M\"")}) {
    REQUIRE(text.find(what) != std::string::npos);
    text.replace(text.find(what), std::string(what).size(), with);
  }
  CHECK_THAT(refusal_of("simulate " + folder.write("huge.toml", text).string()),
             ContainsSubstring("this program is too long") && ContainsSubstring("at most 2.1e+09"));
}

TEST_CASE("a mistyped command line says where its help is") {
  CHECK_THAT(run_program("simulate --format xml " + example).error, ContainsSubstring("see orrery simulate --help"));
  CHECK_THAT(run_program("simulat").error, ContainsSubstring("see orrery --help"));
}

TEST_CASE("a trace without a name or with that of the scenario is refused before anything is written") {
  const ScratchFolder folder;
  const std::string text = read_file(example);
  const std::string copy = folder.write("copy.toml", text).string();
  check_refused("simulate --trace '' " + example, "--trace is empty");
  std::filesystem::create_symlink(copy, folder.path() / "link.toml");
  for (const std::string& name : {copy, (folder.path() / "link.toml").string()}) {
    check_refused("simulate --trace " + name + " " + copy, "names the scenario itself");
    CHECK(read_file(copy) == text);
  }
}

TEST_CASE("a simulation that fails leaves no trace and keeps the one that was there") {
  const ScratchFolder folder;
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
  CHECK_THAT(refusal_of("simulate --trace " + trace + " " + scenario),
             ContainsSubstring("attention of layer 1, forward step 0, would take") && ContainsSubstring("106 days"));
  CHECK(read_file(trace) == "before");
  const auto files = std::filesystem::directory_iterator(folder.path());
  CHECK(std::distance(begin(files), end(files)) == 3);
}

TEST_CASE("a scenario whose name is not UTF-8 gives valid JSON all the same") {
  const ScratchFolder folder;
  const std::string file = folder.write("caf\xe9.toml", read_file(example)).string();
  for (const char* format : {"json", "csv", "text"}) {
    CHECK(run_program(std::string("simulate --format ") + format + " '" + file + "'").exit_code == 0);
  }
  const ProgramRun run = run_program("simulate --format json '" + file + "'");
  CHECK(nlohmann::json::parse(run.output)["scenario"] == "caf\xef\xbf\xbd");
}

TEST_CASE("a full disk is an error, not a short report") {
  refusal_of("simulate --trace /dev/full " + example);
}
