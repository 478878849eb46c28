#include "validate/residuals.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <ostream>
#include <set>

#include "scenarios/step_power.hpp"
#include "validate/measured_rows.hpp"

namespace orrery {
namespace {

/// Tracks of the trace, and what is matched with what: sums and casts are all merges to the simulator.
const char* kind_of(const std::string& op) {
  if (op == "kv_transfer" || op == "halo") return "kv_transfer";
  if (op == "gradient_transfer") return "gradient_transfer";
  return op == "attention" ? "attention" : "merge";
}

class Spans : public SpanSink {
 public:
  Spans(std::span<const std::string> categories, int first_phase)
      : categories_(categories), first_phase_(first_phase) {}
  void ops(std::span<const Span> spans) override {
    for (const Span& span : spans) {
      if (span.phase < first_phase_) continue;
      start = std::min(start, span.start);
      if (span.end == span.start) continue;
      std::vector<Span>& of_kind = by_kind[{span.rank, categories_[span.category]}];
      // One attention kernel may be two ops, until its last wave and that.
      const bool goes_on = !of_kind.empty() && categories_[span.category] == "attention" &&
                           of_kind.back().end == span.start && of_kind.back().block == span.block;
      if (goes_on) {
        of_kind.back().end = span.end;
      } else {
        of_kind.push_back(span);
      }
    }
  }
  void links(std::span<const LinkSpan>) override {}

  std::map<std::pair<int, std::string>, std::vector<Span>> by_kind;
  Ticks start = std::numeric_limits<Ticks>::max();  // of the first phase that is shown

 private:
  std::span<const std::string> categories_;
  int first_phase_;
};

/// Rows of a run are those that agree in every column before `rank`.
std::string key_of(const MeasuredTable& table, std::size_t row) {
  std::string key;
  for (const std::string& column : table.columns()) {
    if (column == "rank") break;
    key += table.text(row, column) + ",";
  }
  return key;
}

/// A backward pass is what a whole step does after its forward pass.
void simulate_beside(Scenario& s, const std::string& pass, RunResidual& run) {
  s.backward = pass != "forward";
  AttentionProgram program = build_program(s);
  Spans spans(program.categories(), pass == "backward" ? static_cast<int>(Phase::backward) : 0);
  const PoweredResult simulated = simulate_step(program, s, {.sink = &spans});
  run.simulated_s = to_seconds(simulated.result.end - spans.start).si();
  std::map<std::pair<int, std::string>, std::size_t> used;
  std::sort(run.ops.begin(), run.ops.end(),
            [](const OpResidual& a, const OpResidual& b) { return a.measured_start_s < b.measured_start_s; });
  for (auto& [kind, list] : spans.by_kind) {
    std::sort(list.begin(), list.end(), [](const Span& a, const Span& b) { return a.start < b.start; });
  }
  for (OpResidual& op : run.ops) {
    const std::pair<int, std::string> kind(op.rank, kind_of(op.op));
    const auto found = spans.by_kind.find(kind);
    if (found == spans.by_kind.end() || used[kind] >= found->second.size()) continue;
    const Span& span = found->second[used[kind]++];
    op.simulated = true;
    op.simulated_start_s = to_seconds(span.start - spans.start).si();
    op.simulated_end_s = to_seconds(span.end - spans.start).si();
  }
}

}  // namespace

std::vector<RunResidual> residuals(const MeasuredTable& table, const std::string& profile) {
  for (const char* column : {"run_us", "rank", "step", "op", "start_us", "end_us"}) {
    if (table.has(column)) continue;
    throw MeasuredFileError(
        fmt::format("{}: no column {} (it holds no runs with time stamps), give a file like ring_steps.csv of orrery "
                    "bench",
                    table.file().string(), column));
  }
  if (table.rows() == 0)
    throw MeasuredFileError(fmt::format("{}: no rows below the column names", table.file().string()));
  std::vector<RunResidual> runs;
  std::string key;
  std::vector<std::size_t> first_rows;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (!cannot_simulate(table, row).empty()) continue;
    if (const std::string of_row = key_of(table, row); runs.empty() || of_row != key) {
      key = of_row;
      first_rows.push_back(row);
      RunResidual& run = runs.emplace_back();
      const auto cell = [&](const char* column) { return table.text(row, column); };
      run.name = fmt::format("{} {}, {} GPUs, {} tokens, {}:{} heads of {}, {} {} {} {}", cell("implementation"),
                             cell("transport"), cell("n_gpu"), cell("seq_len"), cell("heads"), cell("kv_heads"),
                             cell("head_dim"), cell("causal") == "true" ? "causal" : "full", cell("layout"),
                             cell("schedule"), cell("pass"));
      run.measured_s = table.number(row, "run_us") * 1e-6;
    }
    OpResidual op;
    op.rank = static_cast<int>(table.number(row, "rank"));
    op.step = static_cast<int>(table.number(row, "step"));
    op.op = table.text(row, "op");
    op.measured_start_s = table.number(row, "start_us") * 1e-6;
    op.measured_end_s = table.number(row, "end_us") * 1e-6;
    if (!(op.measured_end_s > op.measured_start_s)) throw table.error(row, "end_us is not after start_us");
    runs.back().ops.push_back(std::move(op));
  }
  const ProfileOfRow profile_of_row = profiles_of(table, profile);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    Scenario s = scenario_of(table, first_rows[i], profile_of_row(first_rows[i]));
    simulate_beside(s, table.text(first_rows[i], "pass"), runs[i]);
  }
  return runs;
}

void write_trace(std::ostream& out, const RunResidual& run) {
  // Viewers leave out what begins before 0, and give 0 as a process or thread a meaning of their own.
  double first_s = 0;
  for (const OpResidual& op : run.ops) first_s = std::min(first_s, op.measured_start_s);
  const auto process_of = [](int rank, bool simulated) { return 1 + 2 * rank + (simulated ? 1 : 0); };
  std::map<std::string, int> tracks;
  std::set<std::pair<int, std::string>> named;
  std::string text = "{\"traceEvents\":[\n";
  const auto name = [&](const char* what, int process, int track, const std::string& value) {
    text += fmt::format("{{\"name\":\"{}\",\"ph\":\"M\",\"pid\":{},\"tid\":{},\"args\":{{\"name\":\"{}\"}}}},\n", what,
                        process, track, value);
  };
  const auto event = [&](const OpResidual& op, bool simulated, double start_s, double end_s) {
    const std::string kind = kind_of(op.op);
    const int process = process_of(op.rank, simulated);
    const int track = tracks.emplace(kind, static_cast<int>(tracks.size()) + 1).first->second;
    if (named.emplace(process, "").second) {
      name("process_name", process, 0, fmt::format("rank {} {}", op.rank, simulated ? "simulated" : "measured"));
    }
    if (named.emplace(process, kind).second) name("thread_name", process, track, kind);
    text += fmt::format(
        "{{\"name\":\"{} {}\",\"ph\":\"X\",\"ts\":{:.3f},\"dur\":{:.3f},\"pid\":{},\"tid\":{},\"args\":{{"
        "\"difference_us\":{:.3f}}}}},\n",
        op.op, op.step, (start_s - first_s) * 1e6, (end_s - start_s) * 1e6, process, track,
        op.simulated ? op.difference_s() * 1e6 : 0.0);
  };
  for (const OpResidual& op : run.ops) {
    event(op, false, op.measured_start_s, op.measured_end_s);
    if (op.simulated) event(op, true, op.simulated_start_s, op.simulated_end_s);
  }
  text += fmt::format("{{\"name\":\"{}\",\"ph\":\"i\",\"s\":\"g\",\"ts\":0,\"pid\":1,\"tid\":1}}]}}\n", run.name);
  out << text;
}

}  // namespace orrery
