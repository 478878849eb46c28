// The search for clusters, as a user runs it.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"
#include "tests/scenario_text.hpp"

using namespace orrery;
namespace fs = std::filesystem;

namespace {

const std::string small_train = "size --model llama3_8b --context 32K --pass train --gpu h100_sxm --max-gpus 8 ";
const std::string tiny_prefill = "size --model llama3_8b --context 8K --pass prefill --max-gpus 2 ";

nlohmann::json size_json(const std::string& arguments) {
  const ProgramRun run = run_program(arguments + " --format json");
  INFO(run.error);
  REQUIRE(run.exit_code == 0);
  return nlohmann::json::parse(run.output);
}

}  // namespace

TEST_CASE("size prints the best, the smallest, the front, what would help and what it counted") {
  const ProgramRun run = run_program(small_train + "--price h100_sxm=2");
  CHECK(run.exit_code == 0);
  CHECK(run.error.empty());
  for (const char* part : {"best: step", "cost", "smallest cluster that fits", "Pareto front", "what would help",
                           "infiniband_ndr", "limited by", "bounded away", "assumed"}) {
    CHECK_THAT(run.output, ContainsSubstring(part));
  }
  const auto json = nlohmann::json::parse(run_program(small_train + "--format json").output);
  CHECK(json["candidates"].get<int>() ==
        json["too_large"].get<int>() + json["bounded_away"].get<int>() + json["simulated"].get<int>());
  for (const auto& best : json["best"]) CHECK(best["bound_s"].get<double>() <= best["step_time_s"].get<double>());
}

TEST_CASE("size prints what it orders by, and plans in the keys of a scenario") {
  const std::string asked = "size --model llama3_8b --context 64K --pass train --gpu h200_sxm --max-gpus 8 --keep 100 ";
  const ProgramRun run = run_program(asked + "--objective energy");
  CHECK_THAT(run.output, ContainsSubstring("energy"));
  const auto json = size_json(asked + "--objective energy");
  for (const auto& plan : json["best"]) {
    CHECK_THAT(run.output, ContainsSubstring(fmt::format("{:.4g} J", plan["energy_j"].get<double>())));
    if (plan["schedule"] == "usp")
      CHECK_THAT(run.output, ContainsSubstring(fmt::format("(usp, ulysses_degree {}, ", plan["members"].dump())));
    if (plan["schedule"] == "double_ring")
      CHECK_THAT(run.output,
                 ContainsSubstring(fmt::format("(double_ring, inner_ring {}, ", plan["inner_ring"].dump())));
  }
}

TEST_CASE("what size prints of a plan is what simulate says of it") {
  struct Asked {
    const char *pass, *step, *attention, *pattern;
  };
  const std::vector<Asked> all = {
      {"train", "training_step", "full", "{kind = \"full\"}"},
      {"train", "training_step", "pi:k=512,period=4096,count=all",
       "{kind = \"window\", left = 512}, {kind = \"stride\", period = 4096, count = \"all\"}"},
      {"prefill", "forward", "window:left=4096", "{kind = \"window\", left = 4096}"},
      {"decode", "decode", "window:left=1024", "{kind = \"window\", left = 1024}"}};
  for (const Asked& asked : all) {
    const auto found =
        size_json(fmt::format("size --model llama3_8b --context 32K --batch 2 --pass {} --attention {} --gpu "
                              "h200_sxm --max-gpus 8 --node-size 4 --keep 2",
                              asked.pass, asked.attention));
    for (const auto& plan : found["best"]) {
      const int gpus = plan["gpus"], node = plan["node_size"];
      ScenarioText s{.tokens = 32768, .batch = 2, .pass = asked.step, .scope = "step", .pattern = asked.pattern};
      s.ranks = gpus;
      s.schedule = plan["schedule"];
      s.layout = plan["layout"];
      s.profile = "h200_sxm";
      s.parallelism = fmt::format(
          "data_parallel = {}\ntensor_parallel = {}\npipeline_parallel = {}\nvirtual_stages = {}\nmicrobatches = {}\n",
          plan["data"].dump(), plan["tensor"].dump(), plan["pipeline"].dump(), plan["virtual_stages"].dump(),
          plan["microbatches"].dump());
      if (s.schedule == "usp") s.parallelism += fmt::format("ulysses_degree = {}\n", plan["members"].dump());
      if (s.schedule == "double_ring") s.parallelism += fmt::format("inner_ring = {}\n", plan["inner_ring"].dump());
      if (s.pass == "decode") s.parallelism += "sequence_parallel = false\n";
      if (s.pass == "training_step")
        s.parallelism += fmt::format("zero = {}\nrecompute = {}\nfused_loss = true\n", plan["zero"].dump(),
                                     plan["recompute"].dump());
      if (gpus > node) s.topology = fat_tree_text(gpus / node, node);
      const std::string text = s.text();
      const ScratchFolder folder;
      const ProgramRun run = run_program("simulate " + folder.write("plan.toml", text).string() + " --format json");
      INFO(text << run.error);
      REQUIRE(run.exit_code == 0);
      const auto simulated = nlohmann::json::parse(run.output);
      CHECK_THAT(plan["step_time_s"].get<double>(), WithinRel(simulated["step_time_s"].get<double>(), 1e-9));
      CHECK_THAT(plan["mfu"].get<double>(), WithinRel(simulated["mfu"].get<double>(), 1e-9));
      CHECK(plan["bound_s"].get<double>() <= plan["step_time_s"].get<double>());
    }
  }
}

TEST_CASE("size takes the sliding windows of a config.json, and says what it takes from where") {
  const ScratchFolder folder;
  const std::string fields =
      "\"model_type\": \"mistral\", \"hidden_size\": 1024, \"intermediate_size\": 4096, \"num_attention_heads\": 8, "
      "\"num_key_value_heads\": 8, \"num_hidden_layers\": 4, \"vocab_size\": 1000, \"tie_word_embeddings\": false";
  const std::string model = folder.write("m.json", "{" + fields + ", \"sliding_window\": 1024}").string();
  const std::string options = " --context 32K --pass decode --gpu h100_sxm --max-gpus 1";
  const auto own = size_json("size --model " + model + options);
  const auto stated = size_json("size --model " + model + options + " --attention window:left=1023");
  const auto full = size_json("size --model " + model + options + " --attention full");
  CHECK(own["best"] == stated["best"]);
  CHECK(own["best"][0]["memory_bytes"].get<double>() < full["best"][0]["memory_bytes"].get<double>());
  CHECK(own["best"][0]["step_time_s"].get<double>() < full["best"][0]["step_time_s"].get<double>());
  const auto source_of = [](const nlohmann::json& json, const std::string& name) {
    for (const auto& field : json["assumed"])
      if (field["name"] == name) return field["source"].get<std::string>();
    return std::string();
  };
  CHECK_THAT(source_of(own, "hidden_act"), ContainsSubstring("MistralConfig"));
  CHECK_THAT(source_of(own, "sliding_window"), ContainsSubstring("the pattern of its config.json"));
  CHECK_THAT(source_of(full, "sliding_window"), ContainsSubstring("not used"));
  const std::string page = run_program("size --model " + model + options).output;
  CHECK_THAT(page, ContainsSubstring("window(left 1023) attention"));
  CHECK_THAT(page, ContainsSubstring("m.hidden_act = silu: default of MistralConfig"));
}

TEST_CASE("a size that cannot be says in one sentence what is wrong and what to do") {
  check_refused(small_train + "--target step=1ms", "no cluster up to 8 GPUs meets step=1ms; the best found takes");
  check_refused("size --model llama3_405b --context 128K --pass train --gpu h100_sxm --max-gpus 8",
                "no cluster up to 8 GPUs holds it");
  check_refused(small_train + "--objective cost", "needs the price of h100_sxm");
  check_refused(small_train + "--price a100=2", "--price names a100");
  check_refused(small_train + "--price h100_sxm=free", "not a positive number");
  check_refused(small_train + "--target speed=3", "--target \"speed=3\" is not known");
  check_refused(small_train + "--attention pi:k=8", "--attention pi needs period");
  check_refused(small_train + "--attention star", "is not known");
  check_refused("size --model llama3_8b --context 32K --pass train --gpu h100_sxm,h200_sxm,h100_sxm",
                "names h100_sxm twice");
  check_refused(small_train + "--node-size 4,x", "--node-size \"x\"");
  check_refused(small_train + "--node-size 0", "\"0\" is not a whole number of 1 to 1024");
  check_refused(small_train + "--node-size 2.5", "not a whole number");
  check_refused(small_train + "--layout spiral", "--layout \"spiral\"");
  check_refused("size --model llama4 --context 32K --pass train", "llama4");
  check_refused("size --model llama3_8b --context many --pass train", "many");
  check_refused("size --model llama3_8b --context 32K --pass train --gpu tpu_v4", "torus");
  check_refused("size --model llama3_8b --context 32K --pass train --gpu a100_80_sxm --dtype fp8", "fp8");
}

TEST_CASE("size takes a Hugging Face config.json, and says what it lacks") {
  const ScratchFolder folder;
  const std::string complete =
      R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 16,
          "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256})";
  const std::string rest = " --context 8K --pass train --gpu h100_sxm --max-gpus 2";
  CHECK_THAT(output_of("size --model " + folder.write("config.json", complete).string() + rest),
             ContainsSubstring("smallest cluster that fits"));
  std::string lacking = complete;
  lacking.replace(lacking.find("\"hidden_size\": 2048, "), 21, "");
  const fs::path file = folder.write("config.json", lacking);
  CHECK_THAT(refusal_of("size --model " + file.string() + rest),
             ContainsSubstring("config.json") && ContainsSubstring("hidden_size"));
}

TEST_CASE("size: a GPU without a price among priced ones, or without a board power, is refused instead of being free") {
  check_refused(tiny_prefill + "--gpu h100_sxm,h200_sxm,a100_80_sxm --price h100_sxm=2.5",
                "--price lacks h200_sxm and a100_80_sxm");
  const ScratchFolder folder;
  std::string text = read_file(fs::path(ORRERY_SOURCE_DIR) / "scenarios/hardware/h100_sxm.toml");
  text.erase(text.find("board_power"), text.find('\n', text.find("board_power")) - text.find("board_power"));
  const std::string own = folder.write("own.toml", text).string();
  CHECK_THAT(refusal_of(tiny_prefill + "--objective energy --gpu h100_sxm," + own),
             ContainsSubstring("needs the board power of") && ContainsSubstring("own.toml"));
  const nlohmann::json json = size_json(tiny_prefill + "--profile peak --gpu " + own);
  CHECK(json["best"][0]["cost"].is_null());
  CHECK(json["best"][0]["energy_j"].is_null());
}

TEST_CASE("size: a target that cannot be met names the nearest of what was asked for") {
  const std::string prefill = tiny_prefill + "--gpu h100_sxm ";
  const nlohmann::json all = size_json(prefill + "--keep 100");
  double mfu = 0, seconds = 1e9;
  for (const auto& plan : all["best"]) {
    mfu = std::max(mfu, plan["mfu"].get<double>());
    seconds = std::min(seconds, plan["step_time_s"].get<double>());
  }
  // One GPU has the higher MFU, two are faster.
  CHECK(all["best"][0]["mfu"].get<double>() < mfu);
  CHECK_THAT(refusal_of(prefill + "--target mfu=0.999"),
             ContainsSubstring(fmt::format("the best MFU found is {:.1f} %", 100 * mfu)) &&
                 ContainsSubstring("(1 x h100_sxm"));
  check_refused(prefill + "--target tokens/s=1e9", fmt::format("the best found makes {:.4g} tokens/s", 8192 / seconds));
  CHECK_THAT(refusal_of(prefill + "--target step=1ms,mfu=0.999"),
             ContainsSubstring("the best found takes") && ContainsSubstring("the best MFU found"));
}

TEST_CASE("size: of several targets all hold") {
  const std::string prefill = tiny_prefill + "--gpu h100_sxm --keep 100 ";
  const nlohmann::json all = size_json(prefill);
  const auto& best = all["best"];
  const double slowest = best[best.size() / 2]["step_time_s"], mfu = best[0]["mfu"].get<double>() * 0.97;
  const nlohmann::json both = size_json(prefill + fmt::format("--target step={}s,mfu={}", slowest, mfu));
  const auto meets = [&](const nlohmann::json& plan) { return plan["step_time_s"] <= slowest && plan["mfu"] >= mfu; };
  CHECK(std::all_of(both["best"].begin(), both["best"].end(), meets));
  CHECK(both["best"].size() == static_cast<std::size_t>(std::count_if(best.begin(), best.end(), meets)));
  CHECK(both["best"].size() < best.size());
}

TEST_CASE("size: the MFU of matrices in fp8 is of the peaks of both types, and never above 1") {
  const nlohmann::json json = size_json(
      "size --model llama3_8b --context 8K --pass prefill --max-gpus 1 --dtype fp8 --profile peak "
      "--gpu rtx_4090");
  const double mfu = json["best"][0]["mfu"];
  CHECK(mfu > 0.85);
  CHECK(mfu <= 1);
}

TEST_CASE("size: node sizes that no plan fills twice are said") {
  const nlohmann::json json =
      size_json("size --model llama3_8b --context 8K --pass decode --gpu h100_sxm --max-gpus 16 --node-size 7,8");
  REQUIRE(json["warnings"].size() == 1);
  CHECK_THAT(json["warnings"][0].get<std::string>(), ContainsSubstring("fills several nodes of 7"));
}

TEST_CASE("size: an option that names something twice, or a number that cannot be, is refused") {
  const std::string prefill = tiny_prefill + "--gpu h100_sxm ";
  check_refused(prefill + "--target step=10s,step=11s", "--target gives step twice");
  check_refused(prefill + "--price h100_sxm=1,h100_sxm=2", "--price gives h100_sxm twice");
  check_refused(prefill + "--attention pi:k=1,k=2,period=9", "--attention gives k twice");
  check_refused(prefill + "--attention pi:k=1,period=9,count=0",
                "count = 0 skips nothing, write 1 or more, or \"all\"");
  for (const char* price : {"inf", "nan", "1e308", "0", "-1"})
    check_refused(prefill + "--price h100_sxm=" + price, "not a positive number of at most");
  for (const char* target : {"mfu=inf", "mfu=1.2", "tokens/s=1e300", "tokens/s=0"})
    check_refused(prefill + "--target " + target, "not a positive number of at most");
  check_refused(prefill + "--target step=10", "--target step: \"10\" has no unit");
  check_refused(prefill + "--profile none", "there is no \"none\" in profiles");
  check_refused(prefill + "--objective costs", "write time, cost, energy or gpus");
  check_refused(prefill + "--price 'h100_sxm = 2.5'", "has spaces");
  check_refused(prefill + "--attention pi:k=1024,perod=3", "did you mean \"period\"?");
  check_refused(prefill + "--profile ./none.toml", "there is no such file");
  check_refused(prefill + "--box ''", "there is no such file");
  check_refused(prefill + "--node-size ''", "not a whole number");
  check_refused("size --model llama3_8b --context 8K --pass prefill --gpu 'h100\nx'", "h100 x");
  check_refused(prefill + "--target step=0s", "no time that a step can take");
}

TEST_CASE("size: a GPU that was not measured does what the one that it is like does, and the page says so") {
  const std::string one = "size --model llama3_8b --context 8K --pass prefill --max-gpus 1 ";
  const nlohmann::json both = size_json(one + "--gpu h100_sxm,gh200");
  REQUIRE(both["best"].size() == 2);
  std::map<std::string, nlohmann::json> by_gpu;
  for (const auto& plan : both["best"]) by_gpu[plan["gpu"]] = plan;
  CHECK(by_gpu["h100_sxm"]["profile"] == "measured");
  CHECK(by_gpu["gh200"]["profile"] == "as h100_sxm");
  // The same chip: the same share of its peak, but for what waits for memory.
  CHECK_THAT(by_gpu["gh200"]["mfu"].get<double>(), WithinRel(by_gpu["h100_sxm"]["mfu"].get<double>(), 0.02));
  CHECK(both["warnings"].empty());
  const nlohmann::json peak = size_json(one + "--gpu h100_sxm,gh200 --profile gh200=peak");
  CHECK(peak["best"][0]["profile"] == "peak");
  REQUIRE(peak["warnings"].size() == 1);
  CHECK_THAT(peak["warnings"][0].get<std::string>(),
             ContainsSubstring("gh200 peak (matrix products at 100 % of the peak); --profile gh200=h100_sxm"));
  check_refused(one + "--gpu gh200 --profile h100_sxm=peak", "--profile names h100_sxm");
  check_refused(one + "--gpu gh200 --profile gh200=", "--profile gives gh200 no name");
  check_refused(one + "--gpu gh200 --profile h100", "there is no \"h100\" in profiles");
}

TEST_CASE("size: nodes are the boxes that nvidia-smi and NCCL describe") {
  const std::string boxes = std::string(ORRERY_SOURCE_DIR) + "/tests/scenarios/data/boxes/";
  const std::string train = "size --model llama3_8b --context 8K --pass prefill ";
  const std::string tree = train + "--gpu l20 --box " + boxes + "l40s_4_topo.txt ";
  CHECK_THAT(run_program(tree).output, ContainsSubstring("up to 4 GPUs") &&
                                           ContainsSubstring("on a PCIe tree, 1 under a switch, 2 sockets, pcie4_x16"));
  // One link between the sockets for two GPUs on either side, where a switch has one for each.
  const nlohmann::json on_tree = size_json(tree + "--keep 100"),
                       on_switch = size_json(train + "--gpu l20 --max-gpus 4 --node-size 4 --keep 100");
  const auto slowest = [](const nlohmann::json& json) { return json["best"].back()["step_time_s"].get<double>(); };
  CHECK(on_tree["best"][0]["step_time_s"].get<double>() >= on_switch["best"][0]["step_time_s"].get<double>());
  CHECK(slowest(on_tree) > slowest(on_switch));
  const nlohmann::json two = size_json(train + "--gpu h100_sxm --max-gpus 16 --box " + boxes + "h100_8_nccl.xml");
  CHECK(two["best"][0]["gpus"] == 16);
  CHECK(two["best"][0]["node_size"] == 8);
  CHECK(two["best"][0]["link"] == "nvlink4");
  // Two sockets of three GPUs each: five of them are not as many on each.
  std::string six = "\tGPU0\tGPU1\tGPU2\tGPU3\tGPU4\tGPU5\tCPU Affinity\n";
  for (int a = 0; a < 6; ++a) {
    six += fmt::format("GPU{}", a);
    for (int b = 0; b < 6; ++b) six += a == b ? "\tX" : a / 3 == b / 3 ? "\tPIX" : "\tSYS";
    six += "\t0-31\n";
  }
  const ScratchFolder folder;
  const std::string five = train + "--gpu l20 --keep 100 --batch 5 --box " + folder.write("six", six).string();
  const nlohmann::json of_five = size_json(five);
  CHECK_FALSE(of_five["best"].empty());
  for (const nlohmann::json& plan : of_five["best"]) CHECK(plan["gpus"] != 5);
  check_refused(tree + "--node-size 4", "give one of the two");
  check_refused(train + "--gpu l20,h100_sxm --box " + boxes + "l40s_4_topo.txt", "GPUs of one kind");
  check_refused(train + "--gpu a100_80_sxm --box " + boxes + "h100_8_nccl.xml", "name the right --gpu");
  check_refused(train + "--gpu l20 --box nowhere.txt", "there is no such file");
}
