// Measured runs of many GPUs and single kernels, and what the simulator says of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cost_models/measured_kernels.hpp"
#include "cost_models/measured_table.hpp"
#include "scenarios/scenario.hpp"

namespace orrery {

/// One row of a run file. Its columns (empty optional fields take the preset's value):
///   implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms
/// Kernel rows have schedule = kernel and columns n_q, n_k. Further columns are carried along; of these `regime`
/// (burst or sustained), `transport`, `channels`, `window`, `period`, `physical_gpus`, `nodes` and `network` (GPUs are
/// spread evenly over them), `ulysses_degree`, `tolerance`, `status` and `not_predicted` (why no scenario is this row)
/// are read. A row without time_ms (status `planned`, if it has one) is only predicted. Rows of whole steps:
/// step_runs.hpp. A file that compares methods says in its header how exact its numbers are, `# reading_error = 0.002`:
/// see orderings.hpp. `# profile = NAME` is the profile to predict it with.
struct Prediction {
  std::string group;           // of the summary: the folder of the file, and what it is
  std::string of_gpu;          // of the summary too: the GPU instead of the folder; empty if the row names none
  std::string name;            // for people
  std::string place;           // file:line
  std::size_t row = 0;         // of the table
  std::string implementation;  // the preset of a run of several GPUs
  std::string transport;       // and how that sends
  std::string schedule;
  std::string mask;  // and layout, as mask_and_layout() says it
  int gpus = 0;
  Seconds measured;           // 0: not yet, the row is only predicted
  Seconds predicted;          // 0: not predicted, see `reason`
  double band = 0;            // half width of the 90 % interval, as a fraction of the prediction; 0: there is none
  double propagated = 0;      // of a run: what of it follows from kernels and messages
  bool extrapolated = false;  // beyond the measured range of the profile
  bool fitted = false;        // a constant of the profile was fitted on this very row
  bool calibrated = false;    // the width of the interval was, not the prediction
  std::optional<double> tolerance;
  std::string reason;
  bool many_gpus = false;    // a run, not a kernel or a message
  std::string setting;       // what is measured apart from the method; empty: methods are not compared
  double reading_error = 0;  // of the measured time, as a fraction
  std::vector<std::pair<std::string, std::string>> carried;  // columns that are not read, and their cells

  bool is_measured() const { return measured > Seconds(); }
  double deviation() const { return predicted / measured - 1; }
  bool has_interval() const { return band > 0; }
  bool within_band() const { return std::abs(measured / predicted - 1) <= band; }
};

struct ErrorSummary {
  std::string group;
  int rows = 0;
  double mean_abs_rel = 0, median_abs_rel = 0, p90_abs_rel = 0, max_abs_rel = 0;
  std::optional<double> interval_coverage =
      std::nullopt;       // of the rows within the measured range that have an interval and did not set its width
  int not_predicted = 0;  // further rows
};

/// `profile`: a name or path; empty: the profile named like the GPU of the row. Rows that the profile was fitted on are
/// marked, rows that cannot be predicted carry the reason. Throws MeasuredFileError for a row that is wrong.
std::vector<Prediction> predict_runs(const MeasuredTable& table, const std::string& profile);
std::vector<Prediction> predict_runs(const MeasuredTable& table, const Profile& profile);

inline constexpr const char* slow_down_group = "slow-down under overlap";

/// Over rows that were predicted and not fitted on: one for each group in the order of appearance, all runs of several
/// GPUs if there are others too, and "all" at the end.
std::vector<ErrorSummary> summarize(const std::vector<Prediction>& predictions);

/// Held-out rows of a GPU that are the same but for the measured time, of whatever folder, as one: measured is their
/// median, its tolerance the smallest, and it carries the cells that all of them have. It stands where the first of
/// them stood; rows that constants were fitted on are left out, others stay.
std::vector<Prediction> medians_of_repeats(const std::vector<Prediction>& predictions);

/// The scenario of a run of several GPUs: attention of one layer.
Scenario scenario_of(const MeasuredTable& table, std::size_t row, Profile profile);
/// GPU_BACKEND, if there is a profile of that name: the kernels of a row's backend are not those of its GPU's profile.
std::string profile_of_backend(const MeasuredTable& table, std::size_t row);

/// The committed files that are validated if none is named: measured runs and kernels, or published tables.
std::vector<std::filesystem::path> committed_files(std::string_view folder);

}  // namespace orrery
