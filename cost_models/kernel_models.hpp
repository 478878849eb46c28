// What is known of the kernels of one GPU type beyond its datasheet: for each kind of kernel a form, and the constants
// of that form. A profile carries them if they were measured (orrery fit writes them); without, the roofline holds.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cost_models/clock.hpp"
#include "cost_models/constant.hpp"
#include "cost_models/link_table.hpp"
#include "cost_models/row_digest.hpp"

namespace orrery {

enum class Phase : std::uint8_t { forward, backward };
std::string_view name_of(Phase phase);

/// Attention: launch + streams + makespan of the tile lists (attention_tiles.hpp) at the clock of the load.
struct AttentionModel {
  Phase phase = Phase::forward;
  int head_dim = 0;
  Constant launch;           // s, independent of the shape: launch gap, first loads, the end of the last store
  Constant cold_start;       // s more, if what it reads first is not in L2
  Constant query_traffic;    // B per element of Q that kernels around the tiles move (backward: dO * O, fp32 dQ)
  Constant grouped_traffic;  // B per element of K and query head, if query heads share keys (backward: dK, dV sums)
  Constant grouped_launch;   // s, if query heads share keys: of the kernel that sums their dK and dV
  Constant waves_in_step;    // e-fold in which lists of equal length drift apart; 0: starts do not wait for memory
  Constant list_start;       // cycles
  Constant full_tile;        // cycles
  Constant masked_tile;      // cycles
  Constant masked_kernel;    // cycles of a full tile in a kernel with a mask, in full tiles; 0: as in others
  Constant guarded_kernel;   // as many times the cycles of a tile where a block ends inside one; 0: as without that end
  Constant window_kernel;    // the same of a kernel with a window; 0: as with a mask
  Constant window_launch;    // s more than other kernels take to start and end, if it is one with a window
  Constant window_start;     // cycles more of a list in it, the edges of the window included; 0: as with a mask
  Constant guarded_window;   // cycles more, if its keys end inside a tile: forward of a list, backward of a tile
  // A mask over more keys than queries, a rectangle:
  Constant rectangle_edge;   // cycles more of every tile for an edge of the mask; 0: the kernel skips what is masked
  Constant rectangle_start;  // cycles more of a list where it does
  PowerModel power;
};

/// Matrix products: launch + cycles of their tiles (product_tiles.hpp) / clock, or launch + bytes / the rate of copies,
/// if that is longer.
///
/// Hopper's kernels move tiles by TMA, which wants rows a multiple of 16 bytes apart. For matrices whose rows are 4 or
/// 8 bytes apart cuBLASLt has Ampere's kernels (cp.async takes at least 4 bytes: cutlass_80_tensorop_bf16_s16816gemm,
/// align2), for others Turing's (cutlass_75_tensorop_bf16_s1688gemm, align1). Both have other layouts forward (a dot
/// product's numbers lie together in both operands) than backward. Of these no tiles are modelled: FLOPs / efficiency.
struct GemmModel {
  Constant launch;        // s
  Constant efficiency;    // of the tensor cores, at the clock that holds, inside a large product
  Constant tile_ends;     // numbers of the inner size that take as long as the begin and the end of a tile
  Constant operand_rate;  // bytes per cycle that reach an SM
  // Efficiencies if rows are 4 or 8 bytes apart, or 2. 0: not measured, as if they were aligned.
  Constant even_rows_forward, even_rows_backward, odd_rows_forward, odd_rows_backward;
  PowerModel power;

  /// Which of them holds for rows of that alignment, in bytes. Null: `efficiency`.
  static Constant GemmModel::*of_rows(int alignment, Phase phase);
};

/// Kernels that only move bytes: launch + bytes / bandwidth. launch * bandwidth is the size at half the rate. The first
/// bytes go at another rate: as long as what is written fits into L2, its way to HBM is not waited for.
struct StreamModel {
  std::string kernel;
  Constant launch;            // s
  Constant bandwidth;         // B/s, beyond the cache
  Constant cached_bandwidth;  // B/s
  Constant cache;             // B; 0: all at `bandwidth`

  Seconds time(Bytes bytes) const;
};

/// The half width, as a fraction of the prediction, that 90 % of predictions are within.
struct ErrorBand {
  std::string group;           // "attention forward", "dense", "links", ...
  double inside = 0;           // shapes within the measured range
  double outside = 0;          // beyond it: `extrapolated`
  double least = 0, most = 0;  // the measured range, in FLOPs or bytes of one op
  int rows = 0;
  std::string source{};  // whose, if no row of its own says; empty: of its own rows
  /// Of attention also the numbers of rows: as many FLOPs are few queries and many keys, which take other times.
  double least_queries = 0, most_queries = unlimited, least_keys = 0, most_keys = unlimited;
  bool causal_rectangles = false;  // causal masks of more keys than queries were measured
  static constexpr double unlimited = std::numeric_limits<double>::infinity();
};

/// How far whole runs of an implementation miss, in multiples of what the bands of their kernels and messages add up
/// to: 90 % of the runs that calibrated it are within `factor`.
struct RunBand {
  std::string implementation;          // the preset
  std::string transport;               // its transport
  std::vector<std::string> schedules;  // of those runs; empty: not said, any
  double factor = 0;
  int rows = 0;
  int most_gpus = 0;
  double shortest_s = 0, longest_s = 0;
  std::string source;
  std::vector<std::string> masks{};  // and layouts of those runs, as step_interval.hpp calls them; empty: any
};

/// How many times as long NCCL's transfers take beside a kernel: the thread blocks that copy keep a fixed number of
/// bytes in flight, and wait longer for a memory system that others load (Little's law).
struct NcclBeside {
  Constant attention_forward, attention_backward, matrix_products, streams;
};

struct MeasuredKernels {
  ClockModel clock;
  std::vector<AttentionModel> attention;
  std::optional<GemmModel> gemm;
  std::vector<StreamModel> streams;
  std::vector<LinkTable> links;
  std::optional<NcclBeside> nccl_beside;
  std::vector<ErrorBand> bands;
  std::vector<RunBand> runs;
  RowDigests fitted_rows, calibrating_rows;  // what constants, and what bands come from

  /// The measured models next to that head_dim, from below and from above: twice the same if it was measured or lies
  /// beyond those that were. Null if there is none of the phase.
  struct Neighbours {
    const AttentionModel* below = nullptr;
    const AttentionModel* above = nullptr;
  };
  Neighbours attention_around(Phase phase, double head_dim) const;
  /// The model of that head_dim. If it was not measured, between two that were the straight line between their
  /// constants, which is written to `between`, and beyond them the next. Null if there is none of the phase.
  const AttentionModel* attention_at(Phase phase, double head_dim, AttentionModel& between) const;
  /// The measured one of that head_dim, or the next.
  const AttentionModel* attention_of(Phase phase, double head_dim) const;
  bool is_measured(Phase phase, double head_dim) const;
  const StreamModel* stream_of(std::string_view kernel) const;
  /// That of "other" if none is of the kernel. Null if there is none of it either.
  const StreamModel* stream_or_other(std::string_view kernel) const;
  const LinkTable* link_of(std::string_view link, std::string_view mechanism, std::string_view op) const;
  const ErrorBand* band_of(std::string_view group) const;
};

/// A constant of a form: its key in files, its unit, what bounds it physically, where a fit starts, and which rows
/// determine it.
template <class Model>
struct ConstantOf {
  std::string_view name;
  std::string_view unit;
  Constant Model::*member;
  double lower, upper, start;
  std::string_view determined_by;
  bool optional = false;  // files may leave it out: 0
};

std::array<ConstantOf<ClockModel>, 12> constants_of_clock();
std::array<ConstantOf<PowerModel>, 2> constants_of_power();
std::array<ConstantOf<AttentionModel>, 17> constants_of_attention();
std::array<ConstantOf<GemmModel>, 8> constants_of_gemm();
std::array<ConstantOf<StreamModel>, 4> constants_of_stream();
std::array<ConstantOf<NcclBeside>, 4> constants_of_nccl_beside();

}  // namespace orrery
