#include "cli/size_arguments.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>
#include <thread>

#include "scenarios/data_files.hpp"
#include "scenarios/nearest.hpp"
#include "scenarios/preset_files.hpp"
#include "sim/contains.hpp"
#include "sim/units.hpp"

namespace orrery {
namespace {

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

/// Beyond these it is a typing error: a GPU costs some units of money an hour, and no cluster is that fast.
constexpr double dearest_hour = 1e6, most_tokens_per_s = 1e15;

double number(const std::string& text, const std::string& what, double most, double example) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0 && value <= most)) {
    throw std::runtime_error(fmt::format("{} is \"{}\" (not a positive number of at most {:g}), write e.g. {:g}", what,
                                         in_one_line(text), most, example));
  }
  return value;
}

/// "name=value,name=value"; each name once.
std::map<std::string, std::string> pairs_of(const std::string& text, const std::string& option) {
  std::map<std::string, std::string> pairs;
  if (text.empty()) return pairs;
  for (const std::string& part : split(text, ',')) {
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos || equals == 0)
      throw std::runtime_error(
          fmt::format("{}: \"{}\" has no {}, write NAME=VALUE", option, part, equals == 0 ? "name" : "value"));
    if (part.find_first_of(" \t") != std::string::npos)
      throw std::runtime_error(
          fmt::format("{}: \"{}\" has spaces (they would belong to a name), write NAME=VALUE", option, part));
    const std::string name = part.substr(0, equals);
    if (!pairs.emplace(name, part.substr(equals + 1)).second)
      throw std::runtime_error(
          fmt::format("{} gives {} twice (only one of them could count), give it once", option, name));
  }
  return pairs;
}

std::vector<int> node_sizes_of(const std::string& text) {
  std::set<int> sizes;
  for (const std::string& part : split(text, ',')) {
    int size = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), size);
    if (error != std::errc() || end != part.data() + part.size() || size < 1 || size > 1024)
      throw std::runtime_error(
          fmt::format("--node-size \"{}\" is not a whole number of 1 to 1024, write e.g. 4,8", part));
    sizes.insert(size);
  }
  return {sizes.begin(), sizes.end()};
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
  const std::vector<std::string> known =
      kind == "pi" ? std::vector<std::string>{"k", "period", "count"} : std::vector<std::string>{"left"};
  for (const auto& [key, value] : keys) {
    if (!contains(known, key))
      throw std::runtime_error(fmt::format("--attention {} knows no \"{}\", {}", kind, key, suggest(key, known)));
  }
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
    // To the mask 0 is all of them.
    const bool all = keys.contains("count") && keys["count"] == "all";
    if (all) keys.erase("count"), skip.count = 0;
    if (keys.contains("count")) skip.count = count("count");
    if (!all && skip.count == 0)
      throw std::runtime_error("--attention pi: count = 0 skips nothing, write 1 or more, or \"all\"");
    primitives.push_back(skip);
  }
  for (const Primitive& primitive : primitives) check(primitive, 1);
  return primitives;
}

/// Per GPU and hour, of all the options or of none: a missing price would count as 0.
void set_prices(const std::string& text, const std::string& names, std::vector<GpuOption>& options) {
  auto prices = pairs_of(text, "--price");
  if (prices.empty()) return;
  std::vector<std::string> missing;
  for (GpuOption& option : options) {
    const auto found = prices.find(option.name);
    if (found == prices.end()) {
      missing.push_back(option.name);
      continue;
    }
    option.price_per_hour = number(found->second, "the price of " + option.name, dearest_hour, 2.5);
    prices.erase(found);
  }
  if (!prices.empty()) {
    throw std::runtime_error(fmt::format("--price names {} (it is not one of --gpu {}), add it there or leave it out",
                                         prices.begin()->first, names));
  }
  if (!missing.empty()) {
    throw std::runtime_error(
        fmt::format("--price lacks {} (without a price it would seem to be free), add {}=2.5 or leave it out of --gpu",
                    fmt::join(missing, " and "), missing.front()));
  }
}

/// --profile: one for the GPUs that have none of their own, or some by GPU=PROFILE.
class ProfileChoices {
 public:
  explicit ProfileChoices(const std::string& text) {
    if (text.find('=') == std::string::npos) {
      for_others_ = text;
    } else {
      by_gpu_ = pairs_of(text, "--profile");
    }
  }
  ProfileChoice of(const std::string& gpu) {
    if (!for_others_.empty()) load_profile(for_others_, gpu);  // it can be read, also if nobody needs it
    const auto found = by_gpu_.find(gpu);
    if (found == by_gpu_.end()) return {for_others_, true};
    const ProfileChoice choice{found->second, false};
    by_gpu_.erase(found);
    if (choice.name.empty())
      throw std::runtime_error(fmt::format("--profile gives {} no name, write {}=peak", gpu, gpu));
    return choice;
  }
  void finish(const std::string& gpus) const {
    if (by_gpu_.empty()) return;
    throw std::runtime_error(fmt::format("--profile names {} (it is not one of --gpu {}), add it there or leave it out",
                                         by_gpu_.begin()->first, gpus));
  }

 private:
  std::string for_others_;
  std::map<std::string, std::string> by_gpu_;
};

/// Nodes are boxes like the one that the file describes; one of them, if no number of GPUs is given.
void use_box(const SizeArguments& a, SizeProblem& problem) {
  if (problem.gpus.size() > 1)
    throw std::runtime_error(
        fmt::format("--box has GPUs of one kind (--gpu names {}), name the one that is in it", a.gpus));
  if (a.node_sizes)
    throw std::runtime_error("--box says how many GPUs a node has (--node-size does too), give one of the two");
  GpuOption& option = problem.gpus.front();
  option.node = shape_of(read_box(*a.box), option.gpu);
  option.link = load_link(option.node->link);
  problem.node_sizes = {option.node->gpus};
  if (a.max_gpus == 0) problem.max_gpus = option.node->gpus;
}

/// What the objective is computed from must be known of every GPU.
void check_objective(Objective objective, const std::vector<GpuOption>& options) {
  for (const GpuOption& option : options) {
    if (objective == Objective::cost && !option.price_per_hour) {
      throw std::runtime_error(fmt::format(
          "--objective cost needs the price of {0} (none is built in), write --price {0}=2.5", option.name));
    }
    if (objective == Objective::energy && !option.gpu.board_power) {
      throw std::runtime_error(
          fmt::format("--objective energy needs the board power of {} (its file has none), add board_power there or "
                      "leave it out of "
                      "--gpu",
                      option.name));
    }
  }
}

}  // namespace

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
  p.primitives = !a.attention.empty()         ? pattern_of(a.attention)
                 : !p.model.attention.empty() ? p.model.attention
                                              : pattern_of("full");
  p.network = load_link(a.network);
  p.node_sizes = node_sizes_of(a.node_sizes.value_or("4,8"));
  p.layouts = layouts_of(a.layouts);
  p.max_gpus = a.max_gpus > 0 ? a.max_gpus : 1024;
  p.implementation = load_implementation(a.implementation);
  ProfileChoices profiles(a.profiles);
  std::set<std::string> named;
  for (const std::string& name : split(a.gpus, ',')) {
    if (!named.insert(name).second)
      throw std::runtime_error(fmt::format("--gpu names {} twice (it is one choice), name it once", name));
    p.gpus.push_back(gpu_option(name, a.dtype, profiles.of(name)));
  }
  profiles.finish(a.gpus);
  if (a.box) use_box(a, p);
  set_prices(a.prices, a.gpus, p.gpus);
  check_objective(a.objective, p.gpus);
  p.prepare();
  return p;
}

SizeTargets targets_of(const std::string& text) {
  SizeTargets targets;
  for (const auto& [what, value] : pairs_of(text, "--target")) {
    if (what == "step") {
      try {
        targets.step = parse_seconds(value);
      } catch (const UnitError& error) {
        throw std::runtime_error(fmt::format("--target step: {}, e.g. step=10s", error.what()));
      }
      if (!(targets.step->si() > 0) || !std::isfinite(targets.step->si()))
        throw std::runtime_error(
            fmt::format("--target step={} is no time that a step can take, write e.g. 10s", value));
    } else if (what == "tokens/s") {
      targets.tokens_per_s = number(value, "--target tokens/s", most_tokens_per_s, 1e6);
    } else if (what == "mfu") {
      targets.mfu = number(value, "--target mfu", 1, 0.4);
    } else {
      throw std::runtime_error(fmt::format(
          "--target \"{}={}\" is not known, write step=10s, tokens/s=1e6 or mfu=0.4 (or several: all must hold)", what,
          value));
    }
  }
  return targets;
}

double tokens_of_step(const SizeProblem& problem) {
  return static_cast<double>(problem.batch) *
         (problem.pass == StepPass::decode ? 1.0 : static_cast<double>(problem.tokens));
}

SizeOptions options_of(const SizeArguments& a, const SizeProblem& problem) {
  SizeOptions options;
  options.keep = a.keep;
  options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  options.objective = a.objective;
  const SizeTargets targets = targets_of(a.target);
  options.slowest = targets.step;
  options.least_mfu = targets.mfu;
  if (targets.tokens_per_s) {
    const Seconds slowest = Seconds::from_si(tokens_of_step(problem) / *targets.tokens_per_s);
    options.slowest = std::min(options.slowest.value_or(slowest), slowest);
  }
  return options;
}

}  // namespace orrery
