// The table of the bench: groups (one CSV file each) and rows (what to measure, and the work it counts).
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/csv.hpp"
#include "kernels/measure.hpp"
#include "kernels/reference.hpp"

namespace orrery {

struct Outcome {
  Fields values;  // result columns
  std::vector<Fields>
      rows;  // for a row of the table that gives several lines of CSV: fields added to or replacing keys
  std::vector<Fields> steps;  // lines of <group>_steps.csv: time stamps inside one run
  double headline = 0;        // shown on the terminal, in `headline_unit`
  std::string headline_unit;
};

struct Row {
  std::string group;
  std::string name;  // unique in the table; what --only matches
  std::string what;  // one line, for --list
  Fields keys;       // the columns that say what was measured
  double flops = 0, bytes = 0;
  bool quick = false;   // part of --quick
  bool in_full = true;  // part of --full; otherwise measured where --only names it
  // What the host decides drifts by the minute: `run` is called so often, spread over the whole run, and the outcome of
  // the last call, which counts the samples of all, is written.
  int rounds = 1;
  double expected_s = 0.5;  // for the progress bar until measured times correct it
  std::function<Outcome(Rig&)> run;
  std::function<void(int device)> prepare;  // compiles plans; of many rows at once, before anything is timed
};

struct Group {
  std::string name;  // the file is <name>.csv
  std::string what;
  std::vector<std::string> columns;
  std::string missing = {};  // why it has no rows on this machine; empty if it has
  std::vector<std::string> step_columns = {};
};

struct Table {
  std::vector<Group> groups;
  std::vector<Row> rows;
  int gpus = 1;
  std::string gpu;   // for the gpu column: h200_sxm, ...
  std::string link;  // nvlink4, pcie or none
};

// `keys`, then the result columns every kernel row has. `unit` is us or ms.
std::vector<std::string> result_columns(const std::string& unit, std::vector<std::string> keys);
Fields result_fields(const Measurement& m, const std::string& unit);
// Measures in both regimes (long kernels only sustained; bursts alone if no window is given), a line of CSV for each;
// the headline is that of the first. Sustained windows lie before the dip that comes 0.8 s after a load began, when the
// power limit takes back what was overdrawn: 0.2 s at a clock 4 to 18 % lower. Without a rest the load of the row
// before brings it earlier.
constexpr Window kSustained{0.2, 0.3};
Outcome both_regimes(Rig& rig, const Work& work, const std::string& unit, const Fields& check,
                     const std::function<double(double us)>& headline, const std::string& headline_unit,
                     std::optional<Window> sustained = kSustained);
// Throws if the error is above the tolerance, so that a wrong kernel is never timed.
Fields checked(const Difference& difference, double tolerance);
constexpr double kBf16Tolerance = 1e-2;
// A memory-bound kernel, sustained: the check, then the time, with the headline in GB/s.
Outcome checked_and_timed(Rig& rig, const Work& work, const Difference& error, double tolerance, double bytes);

// A folder name for a GPU: "NVIDIA H200" is h200_sxm (the PCIe part is named H200 NVL).
std::string gpu_key(const std::string& name);

// The files rows_*.cpp add their groups and rows.
void add_attention_rows(Table& table);
void add_elementwise_rows(Table& table);
void add_gemm_rows(Table& table);
void add_link_rows(Table& table);
void add_merge_rows(Table& table);
void add_nccl_rows(Table& table);
void add_overhead_rows(Table& table);
void add_overlap_rows(Table& table);
void add_pi_attention_rows(Table& table);
void add_power_rows(Table& table);
void add_ring_rows(Table& table);
// All of them, in the order they are measured: costs of the host and of copies first, while the clock is not held back
// by a kernel that ran before; the rows that heat the GPU most last.
Table make_table(int gpus, const std::string& gpu, const std::string& link);

}  // namespace orrery
