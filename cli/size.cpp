// orrery size: which GPUs, how many, and how to use them.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/progress_bar.hpp"
#include "cli/size_arguments.hpp"
#include "cli/size_report.hpp"

namespace orrery {
namespace {

/// The nearest to each target that was asked for.
std::string unmet(const SizeArguments& a, const SizeProblem& problem, const SizeResult& result) {
  const SizeTargets targets = targets_of(a.target);
  std::vector<std::string> nearest;
  const auto add = [&](const std::string& reaches, const Sized& s) {
    nearest.push_back(
        fmt::format("{}, limited by {} ({})", reaches, s.step.bottleneck, describe(problem, s.candidate)));
  };
  const Sized& fastest = *result.fastest;
  if (targets.step)
    add(fmt::format("the best found takes {} at an MFU of {:.1f} %", format(fastest.step.time), 100 * fastest.mfu),
        fastest);
  if (targets.tokens_per_s)
    add(fmt::format("the best found makes {:.4g} tokens/s", tokens_of_step(problem) / fastest.step.time.si()), fastest);
  if (targets.mfu) {
    const Sized& most = *result.highest_mfu;
    add(fmt::format("the best MFU found is {:.1f} %, of a step of {}", 100 * most.mfu, format(most.step.time)), most);
  }
  return fmt::format("no cluster up to {} GPUs meets {}; {}; relax the target or allow more GPUs", problem.max_gpus,
                     a.target, fmt::join(nearest, "; "));
}

/// Peaks beside measured rates would win whatever the GPUs are worth.
void compare_bases(const SizeProblem& problem, std::vector<std::string>& warnings) {
  std::set<std::string> kinds;
  std::vector<std::string> all;
  const GpuOption* lender = nullptr;
  for (const GpuOption& option : problem.gpus) {
    const std::string basis = basis_of(option);
    // What was measured, here or of the GPU that it is like, compares.
    const bool whole = option.profile.kernels && option.profile.kernels->gemm;
    if (basis == "measured") lender = &option;
    kinds.insert(whole ? "measured" : basis);
    all.push_back(fmt::format("{} {}{}", option.gpu.name, basis,
                              whole ? ""
                                    : fmt::format(" (matrix products at {:.0f} % of the peak)",
                                                  100 * option.profile.dense_efficiency.value)));
  }
  if (kinds.size() < 2) return;
  const auto other = std::find_if(problem.gpus.begin(), problem.gpus.end(), [&](const GpuOption& option) {
    return !option.profile.kernels || !option.profile.kernels->gemm;
  });
  warnings.push_back(fmt::format("times of different kinds compete: {}; {}", fmt::join(all, ", "),
                                 lender != nullptr
                                     ? fmt::format("--profile {}={} gives the same fractions of the peaks to both",
                                                   other->name, lender->profile.name)
                                     : "--profile GPU=PROFILE gives them the same"));
}

std::vector<std::string> warnings_of(const SizeProblem& problem, const SizeResult& result) {
  std::vector<std::string> warnings;
  compare_bases(problem, warnings);
  for (const int size : result.never_filled) {
    warnings.push_back(
        fmt::format("no plan of up to {} GPUs fills several nodes of {}: of such nodes only one was searched",
                    problem.max_gpus, size));
  }
  return warnings;
}

void run(const SizeArguments& a) {
  const SizeProblem problem = problem_of(a);
  SizeOptions options = options_of(a, problem);
  std::optional<ProgressBar> bar;
  options.progress = [&](std::int64_t decided, std::int64_t candidates) {
    if (!bar) bar.emplace(0, candidates);
    bar->show(decided);
  };
  const SizeResult result = search(problem, options);
  bar.reset();
  if (!result.fastest) {
    throw std::runtime_error(
        fmt::format("no cluster up to {} GPUs holds it (at least {} per GPU are needed), allow more GPUs or other ones",
                    problem.max_gpus, format(result.least_memory)));
  }
  if (result.best.empty()) throw std::runtime_error(unmet(a, problem, result));
  const Pattern pattern(problem.primitives, static_cast<int>(problem.model.layers));
  const SizeReport report{problem,
                          result,
                          what_ifs(problem, result.best.front(), options.threads),
                          a.pass,
                          a.attention.empty() ? pattern.describe() : a.attention,
                          a.target,
                          warnings_of(problem, result),
                          problem.model.assumptions(a.attention.empty())};
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
  command->add_option("--max-gpus", a->max_gpus, "No cluster is larger (default: 1024, or one box)")
      ->check(CLI::Range(1, 65536));
  command->add_option("--node-size", a->node_sizes, "GPUs of a node, sizes to choose from (default: 4,8)");
  command->add_option("--box", a->box,
                      "Nodes are such boxes: output of nvidia-smi topo -m, or the XML that NCCL dumped");
  command->add_option("--layout", a->layouts, "Of a causal ring's tokens, to choose from: zigzag, contiguous, striped")
      ->capture_default_str();
  command->add_option("--network", a->network, "Link between nodes, of every GPU")->capture_default_str();
  command->add_option("--target", a->target, "step=10s, tokens/s=1e6 or mfu=0.4; several, joined by commas: all hold");
  static const std::map<std::string, Objective> objectives = {
      {"time", Objective::time}, {"cost", Objective::cost}, {"energy", Objective::energy}, {"gpus", Objective::gpus}};
  const auto set_objective = [a](const std::string& name) {
    const auto found = objectives.find(name);
    if (found == objectives.end()) {
      throw std::runtime_error(fmt::format(
          "--objective \"{}\" is not known (it says what is to be least), write time, cost, energy or gpus", name));
    }
    a->objective = found->second;
  };
  command->add_option_function<std::string>("--objective", set_objective, "time, cost, energy or gpus")
      ->default_str("time");
  command->add_option("--attention", a->attention,
                      "full, window:left=4096 or pi:k=1024,period=16384[,count=1]; by default the model's own");
  command->add_option("--price", a->prices, "Per GPU and hour, e.g. h100_sxm=2.5,h200_sxm=3.5");
  command->add_option("--implementation", a->implementation, "A name of `orrery list implementations`")
      ->capture_default_str();
  command->add_option(
      "--profile", a->profiles,
      "For GPUs that have none of their own, or GPU=PROFILE,... (default: of the GPU that theirs is like)");
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
