// orrery claim: on which line or curve a published number is true.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/commands.hpp"
#include "validate/pi_attention_claims.hpp"

namespace orrery {
namespace {

using namespace pi_attention_claims;

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

void print_flops(const FlopsClaim& claim) {
  fmt::print(
      "assumed    the baseline is exact attention in the same model; a forward pass; gate and softmax cost nothing\n"
      "           w keys a query instead of n: of 24 H^2 + 4 n H FLOPs per token and layer (n - w) / (6 H + n) are "
      "saved\n\n"
      "true at    {} are saved at n = (6 H x {} + w) / {:.4g} tokens, twice as many if the baseline is causal\n",
      percent(claim.fewer), claim.fewer, 1 - claim.fewer);
  fmt::print("  {:>8} {:>8} {:>12} {:>12}", "hidden", "keys", "n", "n, causal");
  for (const double tokens : claim.tokens) fmt::print(" {:>13}", fmt::format("at {:.0f}", tokens));
  fmt::print("\n");
  for (const double hidden : claim.hidden) {
    for (const double keys : claim.keys) {
      fmt::print("  {:>8.0f} {:>8.0f} {:>12.0f} {:>12.0f}", hidden, keys,
                 tokens_that_save(claim.fewer, hidden, keys, false), tokens_that_save(claim.fewer, hidden, keys, true));
      for (const double tokens : claim.tokens) fmt::print(" {:>13}", percent(flops_saved(tokens, hidden, keys)));
      fmt::print("\n");
    }
  }
  fmt::print("\nwhole models, counted pair by pair (causal prefill)\n  {:<17} {:>8} {:>12}\n", "model", "keys", "n");
  for (const ModelShape& model : claim.models) {
    for (const double keys : claim.keys) {
      const auto tokens = tokens_that_save(claim.fewer, model, static_cast<Index>(keys));
      fmt::print("  {:<17} {:>8.0f} {:>12}\n", model.name, keys, tokens ? std::to_string(*tokens) : "-");
    }
  }
}

nlohmann::ordered_json flops_json(const FlopsClaim& claim) {
  nlohmann::ordered_json json = {{"fewer", claim.fewer}};
  for (const double hidden : claim.hidden) {
    for (const double keys : claim.keys) {
      json["line"].push_back({{"hidden", hidden},
                              {"keys", keys},
                              {"tokens", tokens_that_save(claim.fewer, hidden, keys, false)},
                              {"tokens_causal", tokens_that_save(claim.fewer, hidden, keys, true)}});
    }
  }
  for (const ModelShape& model : claim.models) {
    for (const double keys : claim.keys) {
      const auto tokens = tokens_that_save(claim.fewer, model, static_cast<Index>(keys));
      json["models"].push_back({{"model", model.name}, {"keys", keys}, {"tokens", nullptr}});
      if (tokens) json["models"].back()["tokens"] = *tokens;
    }
  }
  return json;
}

std::string gpus(const std::optional<int>& count) {
  return count ? std::to_string(*count) : "-";
}

std::string cells(const Needed& needed) {
  const auto fewer = needed.fewer();
  return fmt::format(" | {:>6} {:>6} {:>7}", gpus(needed.exact), gpus(needed.pi), fewer ? percent(*fewer) : "-");
}

void print_gpus(const GpusClaim& claim) {
  const SizeProblem& p = claim.problem;
  fmt::print(
      "assumed    {}, {}, batch {}, {}; {} ({}), nodes of {}, {}, at most {} GPUs; fused loss\n"
      "           exact: causal ring attention and its relatives; pi: k = {}, one skip of {} in every layer\n"
      "           holds, ring: ZeRO-3 and context parallelism alone, layers computed again, any number of GPUs\n"
      "           holds: the best of all plans; powers of two, as in the columns after it\n\n",
      p.model.name, p.pass == StepPass::training ? "training" : "prefill", p.batch, p.dtype, p.gpus.front().gpu.name,
      p.gpus.front().profile.name, p.node_sizes.front(), p.network.name, p.max_gpus, claim.k, claim.period);
  std::string heads = fmt::format("{:>10} | {:<21} | {:<21}", "", "holds, ring", "holds");
  std::string names = fmt::format("{:>10}", "tokens");
  for (const double target : claim.tokens_per_s)
    heads += fmt::format(" | {:<21}", fmt::format("{:g} tokens/s", target));
  for (std::size_t i = 0; i < claim.tokens_per_s.size() + 2; ++i)
    names += fmt::format(" | {:>6} {:>6} {:>7}", "exact", "pi", "fewer");
  fmt::print("{}\n{}\n", heads, names);
  for (const Index tokens : claim.tokens) {
    const GpusRow row = needed_gpus(claim, tokens);
    std::string line = fmt::format("{:>10}", tokens) + cells(row.holds_ring) + cells(row.holds);
    for (const Needed& needed : row.keeps_up) line += cells(needed);
    fmt::print("{}\n", line);
  }
  fmt::print("\n-: not with {} GPUs\n", p.max_gpus);
}

nlohmann::ordered_json to_json(const Needed& needed) {
  nlohmann::ordered_json json = {{"exact_gpus", nullptr}, {"pi_gpus", nullptr}};
  if (needed.exact) json["exact_gpus"] = *needed.exact;
  if (needed.pi) json["pi_gpus"] = *needed.pi;
  return json;
}

nlohmann::ordered_json gpus_json(const GpusClaim& claim) {
  nlohmann::ordered_json json = {{"fewer", claim.fewer}};
  for (const Index tokens : claim.tokens) {
    const GpusRow row = needed_gpus(claim, tokens);
    nlohmann::ordered_json entry = {
        {"tokens", tokens}, {"holds_ring", to_json(row.holds_ring)}, {"holds", to_json(row.holds)}};
    for (std::size_t i = 0; i < row.keeps_up.size(); ++i) {
      entry["keeps_up"].push_back(to_json(row.keeps_up[i]));
      entry["keeps_up"].back()["tokens_per_s"] = claim.tokens_per_s[i];
    }
    json["curve"].push_back(std::move(entry));
  }
  return json;
}

struct ClaimOptions {
  std::string file, format = "text";
};

void run(const ClaimOptions& options) {
  const Table table = Table::parse_file(resolve(options.file, "claims"));
  table.choice("kind", {"claim"});
  const std::string title = table.string("description"), source = table.string("source");
  const bool flops = table.choice("claim", {"flops", "gpus"}) == "flops";
  const FlopsClaim fewer_flops = flops ? read_flops_claim(table) : FlopsClaim();
  const GpusClaim fewer_gpus = flops ? GpusClaim() : read_gpus_claim(table);
  table.finish();
  if (options.format == "json") {
    fmt::print("{}\n", (flops ? flops_json(fewer_flops) : gpus_json(fewer_gpus)).dump(2));
    return;
  }
  fmt::print("claim      {}\nsource     {}\n", title, source);
  flops ? print_flops(fewer_flops) : print_gpus(fewer_gpus);
}

}  // namespace

void add_claim(CLI::App& app) {
  auto options = std::make_shared<ClaimOptions>();
  CLI::App* command = app.add_subcommand("claim", "Print where a published number is true, and what that assumes");
  command->add_option("claim", options->file, "A name of `orrery list claims`, or a path")->required();
  command->add_option("--format", options->format, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace orrery
