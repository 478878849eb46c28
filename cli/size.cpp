// orrery size: which GPUs, how many, and how to use them.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cli/commands.hpp"
#include "cli/size_report.hpp"
#include "scenarios/data_files.hpp"
#include "scenarios/preset_files.hpp"
#include "sim/units.hpp"

namespace orrery {
namespace {

struct SizeArguments {
  std::string model, context, pass, gpus = "h100_sxm,h200_sxm,b200_sxm", target, objective = "time";
  std::string attention = "full", prices, network = "infiniband_ndr", implementation = "ideal", profile = "peak";
  std::string dtype = "bf16", format = "text";
  int max_gpus = 1024, keep = 5;
  std::string node_sizes = "4,8", layouts = "zigzag,contiguous";
  std::int64_t batch = 1;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

double number(const std::string& text, const std::string& what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0)) {
    throw std::runtime_error(fmt::format("{} is \"{}\" (not a positive number), write e.g. 2.5", what, text));
  }
  return value;
}

/// "name=value" pairs.
std::map<std::string, std::string> pairs_of(const std::string& text, const std::string& option) {
  std::map<std::string, std::string> pairs;
  if (text.empty()) return pairs;
  for (const std::string& part : split(text, ',')) {
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos)
      throw std::runtime_error(fmt::format("{}: \"{}\" has no value, write NAME=VALUE", option, part));
    pairs[part.substr(0, equals)] = part.substr(equals + 1);
  }
  return pairs;
}

std::vector<int> node_sizes_of(const std::string& text) {
  std::vector<int> sizes;
  for (const std::string& part : split(text, ',')) {
    const double size = number(part, "--node-size");
    if (size > 1024 || size != std::floor(size))
      throw std::runtime_error(fmt::format("--node-size {} is not a whole number of 1 to 1024, write e.g. 4,8", part));
    sizes.push_back(static_cast<int>(size));
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

std::vector<std::string> layouts_of(const std::string& text) {
  std::vector<std::string> names = split(text, ',');
  for (const std::string& name : names) {
    if (name != "zigzag" && name != "contiguous" && name != "striped")
      throw std::runtime_error(fmt::format(
          "--layout \"{}\" is not one that a ring is searched with, write some of zigzag, contiguous, striped", name));
  }
  return names;
}

std::vector<Primitive> pattern_of(const std::string& text) {
  const std::string kind = text.substr(0, text.find(':'));
  if (text == "full") return {Primitive{}};
  if ((kind != "pi" && kind != "window") || kind.size() == text.size()) {
    throw std::runtime_error(fmt::format(
        "--attention \"{}\" is not known (it says which keys a token sees), write full, window:left=4096 or "
        "pi:k=1024,period=16384",
        text));
  }
  auto keys = pairs_of(text.substr(kind.size() + 1), "--attention");
  const auto count = [&](const char* key) {
    if (!keys.contains(key))
      throw std::runtime_error(fmt::format("--attention {} needs {}, write {}=1024", kind, key, key));
    const Index value = parse_count(keys[key]);
    keys.erase(key);
    return value;
  };
  std::vector<Primitive> primitives = {{.kind = Primitive::Kind::window, .left = count(kind == "pi" ? "k" : "left")}};
  if (kind == "pi") {
    Primitive skip{.kind = Primitive::Kind::stride, .period = count("period"), .count = 1};
    if (keys.contains("count")) skip.count = keys["count"] == "all" ? (keys.erase("count"), 0) : count("count");
    primitives.push_back(skip);
  }
  if (!keys.empty())
    throw std::runtime_error(fmt::format("--attention {} knows no \"{}\", leave it out", kind, keys.begin()->first));
  for (const Primitive& primitive : primitives) check(primitive, 1);
  return primitives;
}

SizeProblem problem_of(const SizeArguments& a) {
  SizeProblem p;
  p.model = load_model(a.model);
  p.tokens = parse_count(a.context);
  if (p.tokens < 1 || p.tokens > (Index{1} << 31))
    throw std::runtime_error(fmt::format("--context {} is not in 1 to 2^31, write one of these", a.context));
  p.batch = a.batch;
  p.pass = a.pass == "train" ? StepPass::training : a.pass == "prefill" ? StepPass::prefill : StepPass::decode;
  p.fp8_matrices = a.dtype == "fp8";
  p.dtype = p.fp8_matrices ? "bf16" : a.dtype;
  p.primitives = pattern_of(a.attention);
  p.network = load_link(a.network);
  p.node_sizes = node_sizes_of(a.node_sizes);
  p.layouts = layouts_of(a.layouts);
  p.max_gpus = a.max_gpus;
  p.implementation = load_implementation(a.implementation);
  auto prices = pairs_of(a.prices, "--price");
  std::set<std::string> named;
  for (const std::string& name : split(a.gpus, ',')) {
    if (!named.insert(name).second)
      throw std::runtime_error(fmt::format("--gpu names {} twice (it is one choice), name it once", name));
    p.gpus.push_back(gpu_option(name, a.dtype, a.profile));
    if (!prices.contains(name)) continue;
    p.gpus.back().price_per_hour = number(prices[name], "the price of " + name);
    prices.erase(name);
  }
  if (!prices.empty()) {
    throw std::runtime_error(fmt::format("--price names {} (it is not one of --gpu {}), add it there or leave it out",
                                         prices.begin()->first, a.gpus));
  }
  if (a.objective == "cost") {
    for (const GpuOption& option : p.gpus) {
      if (option.price_per_hour == 0)
        throw std::runtime_error(
            fmt::format("--objective cost needs the price of {} (none is built in), write --price {}=2.5",
                        option.gpu.name, option.gpu.name));
    }
  }
  p.prepare();
  return p;
}

SizeOptions options_of(const SizeArguments& a, const SizeProblem& problem) {
  SizeOptions options;
  options.keep = a.keep;
  options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const std::map<std::string, Objective> objectives = {
      {"time", Objective::time}, {"cost", Objective::cost}, {"energy", Objective::energy}, {"gpus", Objective::gpus}};
  options.objective = objectives.at(a.objective);
  if (a.target.empty()) return options;
  const auto pairs = pairs_of(a.target, "--target");
  const auto& [what, value] = *pairs.begin();
  if (what == "step") {
    options.slowest = parse_seconds(value);
  } else if (what == "tokens/s") {
    const double tokens = static_cast<double>(problem.batch) *
                          (problem.pass == StepPass::decode ? 1.0 : static_cast<double>(problem.tokens));
    options.slowest = Seconds::from_si(tokens / number(value, "--target tokens/s"));
  } else if (what == "mfu") {
    options.least_mfu = number(value, "--target mfu");
  } else {
    throw std::runtime_error(
        fmt::format("--target \"{}\" is not known, write step=10s, tokens/s=1e6 or mfu=0.4", a.target));
  }
  return options;
}

void run(const SizeArguments& a) {
  const SizeProblem problem = problem_of(a);
  const SizeResult result = search(problem, options_of(a, problem));
  if (!result.fastest) {
    throw std::runtime_error(
        fmt::format("no cluster up to {} GPUs holds it (at least {} per GPU are needed), allow more GPUs or other ones",
                    problem.max_gpus, format(result.least_memory)));
  }
  if (result.best.empty()) {
    throw std::runtime_error(
        fmt::format("no cluster up to {} GPUs meets {}; the best found takes {} at an MFU of {:.1f} %, limited by {} "
                    "({}), relax the target or "
                    "allow more GPUs",
                    problem.max_gpus, a.target, format(result.fastest->step.time), 100 * result.fastest->mfu,
                    result.fastest->step.bottleneck, describe(problem, result.fastest->candidate)));
  }
  const SizeReport report{problem, result, what_ifs(problem, result.best.front()), a.pass, a.attention, a.target};
  if (a.format == "json") {
    print_size_json(report);
  } else {
    print_size_text(report);
  }
}

}  // namespace

void add_size(CLI::App& app) {
  auto a = std::make_shared<SizeArguments>();
  CLI::App* command =
      app.add_subcommand("size", "Find a cluster: which GPUs, how many, and how to spread a model on them");
  command->add_option("--model", a->model, "A name of `orrery list models`, or a path (also of a config.json)")
      ->required();
  command->add_option("--context", a->context, "Tokens of a sequence, e.g. 1M")->required();
  command->add_option("--pass", a->pass, "train, prefill or decode")
      ->required()
      ->check(CLI::IsMember({"train", "prefill", "decode"}));
  command->add_option("--batch", a->batch, "Sequences of a step")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--gpu", a->gpus, "GPUs to choose from, e.g. h100_sxm,h200_sxm")->capture_default_str();
  command->add_option("--max-gpus", a->max_gpus, "No cluster is larger")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command->add_option("--node-size", a->node_sizes, "GPUs of a node, sizes to choose from")->capture_default_str();
  command->add_option("--layout", a->layouts, "Of a causal ring's tokens, to choose from: zigzag, contiguous, striped")
      ->capture_default_str();
  command->add_option("--network", a->network, "Link between nodes, of every GPU")->capture_default_str();
  command->add_option("--target", a->target, "step=10s, tokens/s=1e6 or mfu=0.4");
  command->add_option("--objective", a->objective, "time, cost, energy or gpus")
      ->check(CLI::IsMember({"time", "cost", "energy", "gpus"}))
      ->capture_default_str();
  command->add_option("--attention", a->attention, "full, window:left=4096 or pi:k=1024,period=16384[,count=1]")
      ->capture_default_str();
  command->add_option("--price", a->prices, "Per GPU and hour, e.g. h100_sxm=2.5,h200_sxm=3.5");
  command->add_option("--implementation", a->implementation, "A name of `orrery list implementations`")
      ->capture_default_str();
  command->add_option("--profile", a->profile, "For GPUs that have no profile of their own")->capture_default_str();
  command->add_option("--dtype", a->dtype, "bf16, fp16, fp32, or fp8: the matrices of the layers, the rest in bf16")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32", "fp8"}))
      ->capture_default_str();
  command->add_option("--keep", a->keep, "How many of the best to show")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command->add_option("--format", a->format, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([a] { run(*a); });
}

}  // namespace orrery
