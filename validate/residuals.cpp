#include "validate/residuals.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <ostream>
#include <set>
#include <utility>

#include "scenarios/step_power.hpp"
#include "validate/measured_rows.hpp"

namespace orrery {
namespace {

enum class Passes : std::uint8_t { forward, backward, both };

/// An op that orrery bench stamps, and the kind of what the simulation has of it: a category, or a streaming kernel.
struct StampedOp {
  std::string_view op, kind;
  Passes passes;
};
constexpr StampedOp stamped_ops[] = {
    {"attention", "attention", Passes::both},
    {"attention_gradient", "attention", Passes::backward},
    {"kv_transfer", "kv_transfer", Passes::both},
    {"halo", "kv_transfer", Passes::forward},
    {"all_gather", "kv_transfer", Passes::both},
    {"gradient_transfer", "gradient_transfer", Passes::backward},
    {"halo_gradient", "gradient_transfer", Passes::backward},
    {"reduce_scatter", "gradient_transfer", Passes::backward},
    {"all_to_all", "head_exchange", Passes::both},
    {"merge", "merge", Passes::forward},
    {"cast", "to_bf16", Passes::both},
    {"accumulate", "accumulate", Passes::backward},
    {"pack", "copy_kernel", Passes::both},
    {"unpack", "copy_kernel", Passes::both},
    {"gate", "gate", Passes::forward},
    {"gate_gradient", "gate", Passes::backward},
    {"skip_gradient", "gate", Passes::backward},
};

const StampedOp& stamped_op(const MeasuredTable& table, std::size_t row) {
  const std::string& op = table.text(row, "op");
  const auto known = std::find_if(std::begin(stamped_ops), std::end(stamped_ops),
                                  [&](const StampedOp& stamped) { return stamped.op == op; });
  if (known != std::end(stamped_ops)) return *known;
  throw table.error(row, fmt::format("op = \"{}\" is none that orrery bench stamps, see ring_steps.csv", op));
}

/// What ops are matched by.
struct OpClass {
  int rank;
  Phase phase;
  std::string kind;
  auto operator<=>(const OpClass&) const = default;
};

struct TimedOp {
  int step;
  std::string op;
  Stretch time;
  std::int64_t block = -1;  // of a simulated op
};
using Timeline = std::map<OpClass, std::vector<TimedOp>>;  // each in order of start

bool starts_earlier(const TimedOp& a, const TimedOp& b) {
  return a.time.start_s < b.time.start_s;
}

void go_on(TimedOp& op, const Stretch& time) {
  op.time.end_s = std::max(op.time.end_s, time.end_s);
  op.time.takes_s += time.takes_s;
}

std::string kind_of(const Action& action, const std::string& category, const Implementation& implementation) {
  if (category != "merge") return category;
  const std::string_view kernel = action.kind == ActionKind::merge        ? implementation.merge_kernel
                                  : action.kind == ActionKind::accumulate ? implementation.gradient_sum_kernel
                                                                          : action.kernel;
  if (kernel == implementation.gradient_sum_kernel) return "accumulate";
  return std::string(kernel.starts_with("merge_") ? "merge" : kernel);
}

/// The simulated timeline from the start of the first phase that is measured.
class Spans : public SpanSink {
 public:
  Spans(const AttentionProgram& program, Phase first) : program_(program), first_(first) {}
  void ops(std::span<const Span> spans) override {
    for (const Span& span : spans) {
      if (span.phase < static_cast<int>(first_)) continue;
      start_ = std::min(start_, span.start);
      if (span.end > span.start) spans_.push_back(span);
    }
  }
  void links(std::span<const LinkSpan>) override {}

  Ticks start() const { return start_; }
  Timeline timeline() {
    std::sort(spans_.begin(), spans_.end(), [](const Span& a, const Span& b) { return a.start < b.start; });
    Timeline timeline;
    OpBuffer buffer;
    for (const Span& span : spans_) {
      const std::vector<Action> actions = program_.actions(span.rank, span.block, buffer);
      const Action& action = actions[static_cast<std::size_t>(span.index)];
      const OpClass of{span.rank, static_cast<Phase>(span.phase),
                       kind_of(action, program_.categories()[span.category], program_.input().implementation)};
      const double from = seconds(span.start), to = seconds(span.end);
      std::vector<TimedOp>& ops = timeline[of];
      if (action.is_tail && !ops.empty()) {
        go_on(ops.back(), {from, to, to - from});
      } else {
        ops.push_back({action.step, of.kind, {from, to, to - from}, span.block});
      }
    }
    return timeline;
  }

 private:
  double seconds(Ticks at) const { return to_seconds(at - start_).si(); }

  const AttentionProgram& program_;
  Phase first_;
  std::vector<Span> spans_;
  Ticks start_ = std::numeric_limits<Ticks>::max();
};

int index_of(const MeasuredTable& table, std::size_t row, const char* column, int most) {
  const double value = table.number(row, column);
  if (value >= 0 && value <= most && value == std::floor(value)) return static_cast<int>(value);
  throw table.error(row, fmt::format("{} = {} is not a whole number from 0 to {}", column, value, most));
}

/// What the simulation does in a step is one op.
std::vector<TimedOp> by_step(const std::vector<TimedOp>& simulated) {
  std::vector<TimedOp> steps;
  std::map<std::int64_t, std::size_t> of_block;
  for (const TimedOp& op : simulated) {
    const auto [place, is_new] = of_block.try_emplace(op.block, steps.size());
    if (is_new) {
      steps.push_back(op);
    } else {
      go_on(steps[place->second], op.time);
    }
  }
  return steps;
}

/// How many of `ops`, of which both passes have some, are of the forward pass: as of the simulated ones.
std::size_t of_forward(std::size_t ops, const std::vector<TimedOp>& forward, const std::vector<TimedOp>& backward) {
  if (forward.size() + backward.size() == ops) return forward.size();
  const std::size_t steps = by_step(forward).size(), all_steps = steps + by_step(backward).size();
  return all_steps == 0 ? ops : ops * steps / all_steps;
}

Timeline measured_timeline(const MeasuredTable& table, const StampedRun& run, const Scenario& s, Timeline& simulated) {
  constexpr int most_steps = 1 << 20;
  const std::string& pass = table.text(run.rows.front(), "pass");
  Timeline timeline, of_both;
  for (const std::size_t row : run.rows) {
    const StampedOp& known = stamped_op(table, row);
    const double start_s = table.number(row, "start_us") * 1e-6, end_s = table.number(row, "end_us") * 1e-6;
    if (!(end_s > start_s)) throw table.error(row, "end_us is not after start_us");
    const bool either = pass == "forward_backward" && known.passes == Passes::both;
    const bool backward = known.passes == Passes::backward || pass == "backward";
    const OpClass of{index_of(table, row, "rank", s.ranks() - 1), backward ? Phase::backward : Phase::forward,
                     std::string(known.kind)};
    (either ? of_both : timeline)[of].push_back(
        {index_of(table, row, "step", most_steps), std::string(known.op), {start_s, end_s, end_s - start_s}});
  }
  for (auto& [of, ops] : of_both) {
    std::sort(ops.begin(), ops.end(), starts_earlier);
    OpClass backward = of;
    backward.phase = Phase::backward;
    // Where the op of the backward pass has a name of its own, these are all of the forward pass.
    const std::size_t forward =
        timeline.contains(backward) ? ops.size() : of_forward(ops.size(), simulated[of], simulated[backward]);
    for (std::size_t i = 0; i < ops.size(); ++i) timeline[i < forward ? of : backward].push_back(ops[i]);
  }
  for (auto& [of, ops] : timeline) std::sort(ops.begin(), ops.end(), starts_earlier);
  return timeline;
}

/// `count` ops from `first` on as one.
TimedOp joined(const std::vector<TimedOp>& ops, std::size_t first, std::size_t count) {
  TimedOp all = ops[first];
  for (std::size_t i = first + 1; i < first + count; ++i) go_on(all, ops[i].time);
  if (count > 1) all.op = fmt::format("{} x {}", count, all.op);
  return all;
}

/// As many of the one beside each of the other; if that does not come out even, each alone.
void match_in_order(const OpClass& of, const std::vector<TimedOp>& measured, const std::vector<TimedOp>& kernels,
                    std::vector<OpResidual>& all) {
  const std::vector<TimedOp> simulated = measured.size() == kernels.size() ? kernels : by_step(kernels);
  const std::size_t pairs = std::min(measured.size(), simulated.size());
  if (pairs == 0 || measured.size() % pairs != 0 || simulated.size() % pairs != 0) {
    for (const TimedOp& op : measured) all.push_back({of.rank, op.step, op.op, of.kind, op.time, std::nullopt});
    for (const TimedOp& op : simulated) all.push_back({of.rank, op.step, op.op, of.kind, std::nullopt, op.time});
    return;
  }
  const std::size_t share = measured.size() / pairs, simulated_share = simulated.size() / pairs;
  for (std::size_t i = 0; i < pairs; ++i) {
    const TimedOp op = joined(measured, i * share, share);
    all.push_back(
        {of.rank, op.step, op.op, of.kind, op.time, joined(simulated, i * simulated_share, simulated_share).time});
  }
}

/// Step by step, if the simulation has all steps that were measured; other schedules than rings count them in their own
/// ways.
void match(const OpClass& of, const std::vector<TimedOp>& measured, const std::vector<TimedOp>& simulated,
           std::vector<OpResidual>& all) {
  using OfStep = std::pair<std::vector<TimedOp>, std::vector<TimedOp>>;
  std::map<int, OfStep> steps;
  for (const TimedOp& op : measured) steps[op.step].first.push_back(op);
  for (const TimedOp& op : simulated) steps[op.step].second.push_back(op);
  const bool same_steps =
      std::all_of(steps.begin(), steps.end(), [](const auto& s) { return !s.second.second.empty(); });
  if (!same_steps) return match_in_order(of, measured, simulated, all);
  for (const auto& [step, ops] : steps) match_in_order(of, ops.first, ops.second, all);
}

double start_of(const OpResidual& op) {
  return (op.measured ? op.measured : op.simulated)->start_s;
}

std::string key_of(const MeasuredTable& table, std::size_t row) {
  std::string key;
  for (const std::string& column : table.columns()) {
    if (column == "rank") break;
    key += table.text(row, column) + ",";
  }
  return key;
}

std::string name_of_run(const MeasuredTable& table, std::size_t row) {
  const auto cell = [&](const char* column) { return table.text(row, column); };
  return fmt::format("{} {}, {} GPUs, {} tokens, {}:{} heads of {}, {} {} {} {}", cell("implementation"),
                     cell("transport"), cell("n_gpu"), cell("seq_len"), cell("heads"), cell("kv_heads"),
                     cell("head_dim"), table.optional_boolean(row, "causal") ? "causal" : "full", cell("layout"),
                     cell("schedule"), cell("pass"));
}

}  // namespace

std::vector<StampedRun> stamped_runs(const MeasuredTable& table) {
  for (const char* column : {"run_us", "rank", "step", "op", "start_us", "end_us"}) {
    if (table.has(column)) continue;
    throw MeasuredFileError(
        fmt::format("{}: no column {} (it holds no runs with time stamps), give a file like ring_steps.csv of orrery "
                    "bench",
                    table.file().string(), column));
  }
  if (table.rows() == 0) {
    throw MeasuredFileError(fmt::format("{}: no rows below the column names", table.file().string()));
  }
  std::vector<StampedRun> runs;
  std::string key;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (!cannot_simulate(table, row).empty()) continue;
    if (const std::string of_row = key_of(table, row); runs.empty() || of_row != key) {
      key = of_row;
      runs.push_back({name_of_run(table, row), table.positive(row, "run_us") * 1e-6, {}});
    }
    runs.back().rows.push_back(row);
  }
  if (runs.empty()) {
    throw table.error(
        0, fmt::format("no run of this file is simulated ({}), give one of several GPUs", cannot_simulate(table, 0)));
  }
  return runs;
}

RunResidual residual(const MeasuredTable& table, const StampedRun& run, const std::string& profile) {
  const std::size_t row = run.rows.front();
  Scenario s = scenario_of(table, row, profiles_of(table, profile)(row));
  s.backward = table.text(row, "pass") != "forward";
  AttentionProgram program = build_program(s);
  // A backward pass is what a whole step does after its forward pass.
  Spans spans(program, table.text(row, "pass") == "backward" ? Phase::backward : Phase::forward);
  const PoweredResult simulated = simulate_step(program, s, {.sink = &spans});
  RunResidual compared{run.name, run.measured_s, to_seconds(simulated.result.end - spans.start()).si(), {}};
  Timeline beside = spans.timeline(), measured = measured_timeline(table, run, s, beside);
  for (const auto& [of, ops] : beside) measured[of];  // also what only the simulation has
  for (const auto& [of, ops] : measured) match(of, ops, beside[of], compared.ops);
  std::stable_sort(compared.ops.begin(), compared.ops.end(),
                   [](const OpResidual& a, const OpResidual& b) { return start_of(a) < start_of(b); });
  return compared;
}

void write_trace(std::ostream& out, const RunResidual& run) {
  // Viewers leave out what begins before 0, and give 0 as a process or thread a meaning of their own.
  double first_s = 0;
  for (const OpResidual& op : run.ops) first_s = std::min(first_s, start_of(op));
  const auto process_of = [](int rank, bool simulated) { return 1 + 2 * rank + (simulated ? 1 : 0); };
  std::map<std::string, int> tracks;
  std::set<std::pair<int, std::string>> named;
  std::string text = "{\"traceEvents\":[\n";
  const auto name = [&](const char* what, int process, int track, const std::string& value) {
    text += fmt::format("{{\"name\":\"{}\",\"ph\":\"M\",\"pid\":{},\"tid\":{},\"args\":{{\"name\":\"{}\"}}}},\n", what,
                        process, track, value);
  };
  const auto event = [&](const OpResidual& op, bool simulated, const Stretch& time) {
    const int process = process_of(op.rank, simulated);
    const int track = tracks.emplace(op.kind, static_cast<int>(tracks.size()) + 1).first->second;
    if (named.emplace(process, "").second) {
      name("process_name", process, 0, fmt::format("rank {} {}", op.rank, simulated ? "simulated" : "measured"));
    }
    if (named.emplace(process, op.kind).second) name("thread_name", process, track, op.kind);
    const std::string difference =
        op.is_compared() ? fmt::format("\"difference_us\":{:.3f}", op.difference_s() * 1e6) : "";
    text += fmt::format(
        "{{\"name\":\"{} {}\",\"ph\":\"X\",\"ts\":{:.3f},\"dur\":{:.3f},\"pid\":{},\"tid\":{},\"args\":{{{}}}}},\n",
        op.op, op.step, (time.start_s - first_s) * 1e6, (time.end_s - time.start_s) * 1e6, process, track, difference);
  };
  for (const OpResidual& op : run.ops) {
    if (op.measured) event(op, false, *op.measured);
    if (op.simulated) event(op, true, *op.simulated);
  }
  text += fmt::format("{{\"name\":\"{}\",\"ph\":\"i\",\"s\":\"g\",\"ts\":0,\"pid\":1,\"tid\":1}}]}}\n", run.name);
  out << text;
}

}  // namespace orrery
