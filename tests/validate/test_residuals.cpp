// Measured runs with time stamps beside their simulation.
#include "validate/residuals.hpp"

#include <set>
#include <sstream>

#include "tests/catch.hpp"
#include "tests/validate/measured_files.hpp"
#include "validate/runs.hpp"

using namespace orrery;

TEST_CASE("every measured run with time stamps lies beside its simulation, op by op in both") {
  std::set<std::string> schedules, measured_alone, simulated_alone;
  for (const std::filesystem::path& file : committed_files("measured")) {
    const MeasuredTable table = MeasuredTable::read(file);
    if (!table.has("run_us")) continue;
    if (table.text(0, "physical_gpus") == "1") {
      CHECK_THROWS_WITH(stamped_runs(table), ContainsSubstring("its ranks share one GPU"));
      continue;
    }
    for (const StampedRun& run : stamped_runs(table)) {
      const std::size_t row = run.rows.front();
      const std::string schedule = table.text(row, "schedule");
      schedules.insert(schedule + " " + table.text(row, "pass"));
      double compared_us = 0, stamped_us = 0;  // ops that count as one take as long as they do one by one
      for (const std::size_t i : run.rows) stamped_us += table.number(i, "end_us") - table.number(i, "start_us");
      const std::vector<OpResidual> ops = residual(table, run, "").ops;
      for (const OpResidual& op : ops) compared_us += op.measured ? op.measured->takes_s * 1e6 : 0;
      CHECK_THAT(compared_us, WithinRel(stamped_us, 1e-9));
      for (const OpResidual& op : ops) {
        if (!op.simulated) measured_alone.insert(schedule + " " + op.op);
        if (!op.measured) simulated_alone.insert(schedule + " " + table.text(row, "layout") + " " + op.op);
        if (!op.is_compared() || op.kind != "attention") continue;
        INFO(table.place(row) << ": " << run.name << ": " << op.op << " of step " << op.step << " on rank " << op.rank);
        // Forward beside backward would be off by more than twice.
        CHECK(std::abs(op.difference_s()) < 0.5 * op.measured->takes_s + 20e-6);
      }
    }
  }
  CHECK(schedules == std::set<std::string>{"all_gather forward", "all_gather forward_backward", "halo forward",
                                           "halo forward_backward", "ring backward", "ring forward",
                                           "ring forward_backward", "ulysses forward", "ulysses forward_backward",
                                           "usp forward", "usp forward_backward"});
  CHECK(measured_alone.empty());
  CHECK(simulated_alone.empty());
}

TEST_CASE("the trace of a run with time stamps has both timelines, from 0 on") {
  const MeasuredTable table = MeasuredTable::read(measured_folder / "h200_sxm_x2/ring_steps.csv");
  std::ostringstream trace;
  write_trace(trace, residual(table, stamped_runs(table).front(), ""));
  CHECK_THAT(trace.str(), ContainsSubstring("rank 1 simulated") && ContainsSubstring("difference_us") &&
                              ContainsSubstring("\"thread_name\"") && !ContainsSubstring("\"ts\":-"));
}
