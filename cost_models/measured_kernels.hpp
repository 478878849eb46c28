// Rows of measured files as what they are: kernels of known shape, and messages, with the time each took.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cost_models/kernel_cost.hpp"
#include "cost_models/measured_table.hpp"

namespace orrery {

struct MeasuredKernel {
  enum class Kind { attention, gemm, stream, message };
  Kind kind = Kind::attention;
  std::string group;    // of the table of errors
  std::string shape;    // for people
  std::string place;    // file:line
  std::size_t row = 0;  // of its table
  std::uint32_t digest = 0;
  std::string
      family;  // rows that share constants: "attention forward 128", "merge_block", "nvlink4 nccl send_recv", ...

  Phase phase = Phase::forward;
  bool both_passes = false;  // the time is that of forward and backward together; nothing is fitted on such a row
  AttentionShape attention;
  DenseShape dense;
  std::string kernel;               // streams
  std::string link, mechanism, op;  // messages
  int ranks = 2;                    // messages
  Bytes bytes;                      // streams and messages
  double flushes = 0;               // streams: launches behind which L2 was full of what had to be written, of all

  Regime regime = Regime::sustained;
  Seconds time;         // 0: the row is only planned
  double clock_hz = 0;  // 0: not measured
  Watts power;
  double spread = 0;  // standard deviation of the samples over their median, from p5 and p95; 0: not measured
  /// What the shapes of a family are ordered by: FLOPs, or bytes.
  double work = 0;

  /// Attention without a mask whose keys end inside a tile: another kernel, by h200_sxm_odd.
  bool is_guarded() const;
};

/// What a message's table, its group and the errors about it are called, by `link`, `mechanism`, `op`, `ranks` and
/// `bytes`, which are set, and the channels that NCCL is limited to ("auto" or nothing: none).
void name_message(MeasuredKernel& message, const std::string& channels);

/// The column `regime`, sustained if it is empty. Throws for another word.
Regime regime_of(const MeasuredTable& table, std::size_t row);

/// full, causal or window: the column `mask`, or what `window` and `causal` say. Throws if they contradict each other.
std::string mask_of(const MeasuredTable& table, std::size_t row);

/// The column `batch`, 1 if it is empty. Throws for a `dtype` that no profile is of.
int batch_of(const MeasuredTable& table, std::size_t row);

/// A time in a column of that unit (in seconds). Throws for one that nothing takes.
Seconds measured_time(const MeasuredTable& table, std::size_t row, const char* column, double unit);

/// The file of a row with the folder it is in, e.g. "h200_sxm/attention.csv": what sources of constants name.
std::string file_of(const MeasuredKernel& row);
/// The folder of that: one run of the bench, on one machine.
std::string machine_of(const MeasuredKernel& row);

struct MaskShape {
  double n_q = 0, n_k = 0;
  std::string mask;   // full, causal or window; with n_k != n_q the last query sees the last key
  double window = 0;  // keys a query sees, itself included
};

/// Pairs per head in tiles that hold any, how many of these the mask forbids, and how many lie beyond the last query or
/// key: a tile takes the tensor cores as a whole.
struct TilePairs {
  double executed = 0, masked = 0, beyond = 0;
};
TilePairs tile_pairs(const MaskShape& shape, double tile_query, double tile_key);

/// Throws if a cell that should hold a number does not, also in columns that no model reads.
void check_numbers(const MeasuredTable& table, std::size_t row);

enum class Planned : std::uint8_t { left_out, included };  // rows without a time, which are only predicted

/// Which file this is follows from its columns. Rows whose status is not `ok` are left out; so are tables of host
/// costs, power and overlap, which are read by those who need them. Appends to `rows`.
void add_rows(const MeasuredTable& table, std::vector<MeasuredKernel>& rows, Planned planned = Planned::left_out);

}  // namespace orrery
