// orrery size: which GPUs, how many, and how to use them.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cli/commands.hpp"
#include "scenarios/data_files.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/size_search.hpp"
#include "sim/units.hpp"

namespace orrery {
namespace {

struct SizeArguments {
  std::string model, context, pass, gpus = "h100_sxm,h200_sxm,b200_sxm", target, objective = "time";
  std::string attention = "full", prices, network = "infiniband_ndr", implementation = "ideal", profile = "peak";
  std::string dtype = "bf16", format = "text";
  int max_gpus = 1024, node_size = 8, keep = 5;
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

GpuOption gpu_option(const std::string& name, const SizeArguments& arguments) {
  GpuOption option;
  option.gpu = load_gpu(name);
  option.gpu.peak(arguments.dtype);
  const std::vector<std::string> profiles = known_names("profiles");
  const bool has_own = std::find(profiles.begin(), profiles.end(), option.gpu.name) != profiles.end();
  option.profile = load_profile(has_own ? option.gpu.name : arguments.profile, option.gpu.name);
  option.link = load_link(option.gpu.links.front());
  if (option.link.links_per_gpu != 1) {
    throw std::runtime_error(fmt::format(
        "{}: {} chips form a torus (size builds nodes around a switch), describe its cluster in a scenario instead",
        name, option.gpu.name));
  }
  return option;
}

SizeProblem problem_of(const SizeArguments& a) {
  SizeProblem p;
  p.model = load_model(a.model);
  p.tokens = parse_count(a.context);
  if (p.tokens < 1 || p.tokens > (Index{1} << 31))
    throw std::runtime_error(fmt::format("--context {} is not in 1 to 2^31, write one of these", a.context));
  p.batch = a.batch;
  p.pass = a.pass == "train" ? StepPass::training : a.pass == "prefill" ? StepPass::prefill : StepPass::decode;
  p.dtype = a.dtype;
  p.primitives = pattern_of(a.attention);
  p.network = load_link(a.network);
  p.node_size = a.node_size;
  p.max_gpus = a.max_gpus;
  p.implementation = load_implementation(a.implementation);
  auto prices = pairs_of(a.prices, "--price");
  for (const std::string& name : split(a.gpus, ',')) {
    p.gpus.push_back(gpu_option(name, a));
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

std::string describe(const SizeProblem& problem, const Candidate& c) {
  const Degrees& d = c.degrees;
  std::string text =
      fmt::format("{} x {}: data {}, tensor {}, pipeline {}, context {}", d.ranks(),
                  problem.gpus[static_cast<std::size_t>(c.gpu)].gpu.name, d.data, d.tensor, d.pipeline, d.context);
  if (d.context > 1) {
    text += fmt::format(" ({}{}, {})", c.schedule->name,
                        c.members > 1 && c.groups > 1 ? fmt::format(" {} x {}", c.groups, c.members) : "", c.layout);
  }
  if (problem.pass == StepPass::training)
    text += fmt::format(", ZeRO-{}, recompute {}", d.zero, recompute_names()[static_cast<std::size_t>(c.recompute)]);
  return text;
}

/// What the best one would gain, simulated anew.
struct WhatIf {
  std::string change;
  Seconds time;
  std::string note;
};

std::vector<WhatIf> what_ifs(const SizeProblem& problem, const Sized& best) {
  std::vector<WhatIf> list;
  const auto gpu = static_cast<std::size_t>(best.candidate.gpu);
  const auto add = [&](std::string change, const std::function<void(SizeProblem&, Candidate&)>& edit,
                       std::string note = "") {
    SizeProblem changed = problem;
    Candidate candidate = best.candidate;
    edit(changed, candidate);
    list.push_back({std::move(change), simulate_candidate(changed, candidate).time, std::move(note)});
  };
  add("matrix units of twice the speed", [&](SizeProblem& p, Candidate&) {
    for (auto& [dtype, peak] : p.gpus[gpu].gpu.peaks) peak = peak * 2;
  });
  add("HBM of twice the bandwidth",
      [&](SizeProblem& p, Candidate&) { p.gpus[gpu].gpu.hbm_bandwidth = p.gpus[gpu].gpu.hbm_bandwidth * 2; });
  if (best.gpus > 1)
    add("links inside nodes of twice the bandwidth",
        [&](SizeProblem& p, Candidate&) { p.gpus[gpu].link.bandwidth = p.gpus[gpu].link.bandwidth * 2; });
  if (best.gpus > problem.node_size)
    add("a network of twice the bandwidth",
        [&](SizeProblem& p, Candidate&) { p.network.bandwidth = p.network.bandwidth * 2; });
  const bool full = problem.primitives.front().kind == Primitive::Kind::full;
  if (full && problem.causal && best.candidate.degrees.context > 1 && problem.pass != StepPass::decode)
    add("contiguous layout", [](SizeProblem&, Candidate& c) { c.layout = "contiguous"; });
  constexpr Index k = 1024, period = 16384;
  if (full && problem.pass != StepPass::decode && problem.tokens > 2 * period) {
    const auto reach = static_cast<double>(problem.model.layers) * period;
    add(
        fmt::format("pi-attention k={}, period={}", k, period),
        [&](SizeProblem& p, Candidate& c) {
          p.primitives = {{.kind = Primitive::Kind::window, .left = k},
                          {.kind = Primitive::Kind::stride, .period = period, .count = 1}};
          p.prepare();
          c.layout = "contiguous";
          for (const ScheduleKind& schedule : schedules()) {
            if (schedule.slots.hold == ScheduleKind::Slots::Hold::fetched) c.schedule = &schedule;
          }
          c.groups = c.degrees.context;
          c.members = 1;
        },
        fmt::format("another model: a token sees {:.3g} tokens back after {} layers", reach, problem.model.layers));
  }
  return list;
}

std::string percent(double fraction) {
  return fmt::format("{:+.1f} %", 100 * fraction);
}

void print_text(const SizeProblem& problem, const SizeArguments& a, const SizeResult& r,
                const std::vector<WhatIf>& ifs) {
  const bool priced =
      std::any_of(problem.gpus.begin(), problem.gpus.end(), [](const GpuOption& g) { return g.price_per_hour > 0; });
  const auto row = [&](const Sized& s) {
    fmt::print("  {:>10} {:>6}{} {:>7.1f} % {:>10}  {}\n", format(s.step.time), s.gpus,
               priced ? fmt::format(" {:>9.4g}", s.cost) : "", 100 * s.mfu, format(s.bound.memory),
               describe(problem, s.candidate));
    fmt::print("  {:>10} {:>6}{} limited by {} ({:.0f} % of the critical path); no faster than {}\n", "", "", "",
               s.step.bottleneck, 100 * s.step.bottleneck_share, format(s.bound.time));
  };
  fmt::print("{} at {} tokens, {}, batch {}, {} attention, up to {} GPUs\n", problem.model.name, problem.tokens, a.pass,
             problem.batch, a.attention, problem.max_gpus);
  fmt::print("assumed    nodes of {} around a switch, {} at full bisection, implementation {}, fused loss\n",
             problem.node_size, problem.network.name, problem.implementation.name);
  std::string profiles;
  for (const GpuOption& g : problem.gpus)
    profiles += fmt::format("{}{} {}", profiles.empty() ? "" : ", ", g.gpu.name, g.profile.name);
  fmt::print("profiles   {}\n\n", profiles);
  fmt::print("{:<12} {:>6}{} {:>9} {:>10}\n", "best: step", "GPUs", priced ? "      cost" : "", "MFU", "memory");
  for (const Sized& s : r.best) row(s);
  fmt::print("\nsmallest cluster that fits{}\n", a.target.empty() ? "" : " and meets the target");
  row(*r.fewest);
  fmt::print("\nPareto front (time, GPUs{})\n", priced ? ", cost" : "");
  for (const Sized& s : r.front) row(s);
  fmt::print("\nwhat would help the best\n");
  for (const WhatIf& w : ifs) {
    fmt::print("  {:<42} {:>9}   {:>10}{}\n", w.change, percent(w.time / r.best.front().step.time - 1), format(w.time),
               w.note.empty() ? "" : "   " + w.note);
  }
  fmt::print("\n{} candidates: {} do not fit, {} bounded away, {} simulated\n", r.candidates, r.too_large,
             r.bounded_away, r.simulated);
}

nlohmann::ordered_json to_json(const SizeProblem& problem, const Sized& s) {
  const Degrees& d = s.candidate.degrees;
  return {{"gpu", problem.gpus[static_cast<std::size_t>(s.candidate.gpu)].gpu.name},
          {"gpus", s.gpus},
          {"step_time_s", s.step.time.si()},
          {"bound_s", s.bound.time.si()},
          {"cost", s.cost},
          {"energy_j", s.energy},
          {"mfu", s.mfu},
          {"memory_bytes", s.bound.memory.si()},
          {"data", d.data},
          {"tensor", d.tensor},
          {"pipeline", d.pipeline},
          {"context", d.context},
          {"schedule", s.candidate.schedule->name},
          {"groups", s.candidate.groups},
          {"members", s.candidate.members},
          {"layout", s.candidate.layout},
          {"zero", d.zero},
          {"recompute", recompute_names()[static_cast<std::size_t>(s.candidate.recompute)]},
          {"microbatches", s.candidate.microbatches},
          {"bottleneck", s.step.bottleneck},
          {"bottleneck_share", s.step.bottleneck_share}};
}

void print_json(const SizeProblem& problem, const SizeResult& r, const std::vector<WhatIf>& ifs) {
  nlohmann::ordered_json json;
  json["candidates"] = r.candidates;
  json["too_large"] = r.too_large;
  json["bounded_away"] = r.bounded_away;
  json["simulated"] = r.simulated;
  for (const Sized& s : r.best) json["best"].push_back(to_json(problem, s));
  for (const Sized& s : r.front) json["front"].push_back(to_json(problem, s));
  json["fewest"] = to_json(problem, *r.fewest);
  for (const WhatIf& w : ifs)
    json["what_if"].push_back({{"change", w.change}, {"step_time_s", w.time.si()}, {"note", w.note}});
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
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
  const std::vector<WhatIf> ifs = what_ifs(problem, result.best.front());
  if (a.format == "json") {
    print_json(problem, result, ifs);
  } else {
    print_text(problem, a, result, ifs);
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
  command->add_option("--node-size", a->node_size, "GPUs of a node")->check(CLI::Range(1, 1024))->capture_default_str();
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
  command->add_option("--dtype", a->dtype, "bf16, fp16 or fp32")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}))
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
