#include "cost_models/measured_kernels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>

#include "sim/contains.hpp"

namespace orrery {
namespace {

constexpr double measured_tile = 128;       // rows and columns of the tiles of the attention kernels measured so far
constexpr double normal_p5_to_p95 = 3.29;   // standard deviations of a normal distribution
constexpr double large_message = 1e6;       // bytes; where latency no longer dominates
const std::string torch_prefix = "torch.";  // of kernels that PyTorch launched: slower than those of the same name here
constexpr std::int64_t most_rows = std::int64_t{1} << 27, most_heads = 1 << 20;  // beyond any kernel

MeasuredKernel measured(const MeasuredTable& table, std::size_t row, const char* time_column, double unit,
                        Planned planned) {
  MeasuredKernel k;
  k.place = table.place(row);
  k.row = row;
  k.digest = row_digest(table, row);
  if (planned == Planned::left_out || !table.text(row, time_column).empty())
    k.time = measured_time(table, row, time_column, unit);
  k.regime = regime_of(table, row);
  k.clock_hz = table.optional_number(row, "sm_clock_mhz").value_or(0) * 1e6;
  k.power = Watts::from_si(table.optional_number(row, "power_w").value_or(0));
  const std::string suffix = std::string(time_column).substr(std::string_view("time").size());
  const auto low = table.optional_number(row, "p5" + suffix), high = table.optional_number(row, "p95" + suffix);
  if (low && high && k.time > Seconds()) k.spread = (*high - *low) * unit / k.time.si() / normal_p5_to_p95;
  return k;
}

/// By the row's column or the file's header. How a bench sees to it that nothing is in L2 is its own affair.
bool is_cold(const MeasuredTable& table, std::size_t row) {
  static constexpr std::string_view known[] = {"", "warm", "flushed", "flushed_per_sample", "rotated"};
  const std::string& cell = table.text(row, "cache");
  const std::string& cache = cell.empty() ? table.header("cache") : cell;
  if (contains(known, cache)) return cache != "warm";
  throw table.error(row,
                    fmt::format("cache = \"{}\" is unknown, write warm if what the kernel reads is in L2, flushed if "
                                "it comes from HBM",
                                cache));
}

MeasuredKernel attention_row(const MeasuredTable& table, std::size_t row, Planned planned) {
  MeasuredKernel k = measured(table, row, "time_ms", 1e-3, planned);
  const std::string& pass = table.text(row, "pass");
  k.both_passes = pass == "forward_backward";
  if (pass != "forward" && pass != "backward" && !k.both_passes) {
    throw table.error(
        row, fmt::format("pass = \"{}\" is neither forward, backward nor forward_backward, write one of these", pass));
  }
  if (!table.text(row, "n_gpu").empty() && table.whole_number(row, "n_gpu", most_rows) != 1) {
    throw table.error(row, fmt::format("n_gpu = {} of schedule = kernel (a kernel runs on one GPU), write 1 or the "
                                       "schedule of the run",
                                       table.text(row, "n_gpu")));
  }
  k.kind = MeasuredKernel::Kind::attention;
  k.phase = pass == "backward" ? Phase::backward : Phase::forward;
  const auto number = [&](const char* column, std::int64_t most) {
    return static_cast<double>(table.whole_number(row, column, most));
  };
  MaskShape mask{number("n_q", most_rows), number("n_k", most_rows), mask_of(table, row), 0};
  if (mask.mask == "window") mask.window = number("window", most_rows);
  const TilePairs pairs = tile_pairs(mask, measured_tile, measured_tile);
  k.attention = {.pairs = pairs.executed,
                 .query_rows = mask.n_q,
                 .key_rows = mask.n_k,
                 .heads = number("heads", most_heads),
                 .kv_heads = number("kv_heads", most_heads),
                 .head_dim = number("head_dim", most_heads),
                 .batch = static_cast<double>(batch_of(table, row)),
                 .masked_pairs = pairs.masked,
                 .pairs_beyond = pairs.beyond,
                 .window = mask.mask == "window",
                 .cold = is_cold(table, row)};
  if (std::fmod(k.attention.heads, k.attention.kv_heads) != 0) {
    throw table.error(row, fmt::format("{} query heads do not share {} key heads evenly, write a divisor as kv_heads",
                                       k.attention.heads, k.attention.kv_heads));
  }
  k.group = fmt::format("attention {}", pass);
  k.family = fmt::format("attention {} {}{}", pass, k.attention.head_dim,
                         k.attention.masked_rectangle() ? " rectangle"
                         : k.is_guarded()               ? " guarded"
                                                        : "");
  k.shape = fmt::format("{} {}{} {}:{} heads of {}, {} x {}{}", pass, mask.mask,
                        mask.mask == "window" ? fmt::format(" {}", mask.window) : "", k.attention.heads,
                        k.attention.kv_heads, k.attention.head_dim, mask.n_q, mask.n_k,
                        k.attention.batch > 1 ? fmt::format(", batch {}", k.attention.batch) : "");
  k.work = attention_flops(k.attention, k.phase).si();
  return k;
}

MeasuredKernel gemm_row(const MeasuredTable& table, std::size_t row, Planned planned) {
  MeasuredKernel k = measured(table, row, "time_us", 1e-6, planned);
  k.kind = MeasuredKernel::Kind::gemm;
  k.group = k.family = "gemm";
  const auto number = [&](const char* column) {
    return static_cast<double>(table.whole_number(row, column, most_rows));
  };
  const double tokens = number("tokens"), in = number("in"), out = number("out");
  const std::string& pass = table.text(row, "pass");
  k.dense.products = {pass == "input_gradient"    ? MatrixProduct{tokens, in, out}
                      : pass == "weight_gradient" ? MatrixProduct{in, out, tokens}
                                                  : MatrixProduct{tokens, out, in}};
  k.dense.row_alignment = row_alignment({in, out}, k.dense.element_bytes);
  k.dense.phase = pass == "input_gradient" || pass == "weight_gradient" ? Phase::backward : Phase::forward;
  if (k.dense.row_alignment < 16) {
    k.family = fmt::format("gemm, {} rows, {}", k.dense.row_alignment >= 4 ? "even" : "odd", name_of(k.dense.phase));
  }
  k.shape =
      fmt::format("{} {} {} {} x {} x {}", table.text(row, "model"), table.text(row, "layer"), pass, tokens, in, out);
  k.work = k.dense.flops().si();
  return k;
}

MeasuredKernel stream_row(const MeasuredTable& table, std::size_t row, Planned planned) {
  MeasuredKernel k = measured(table, row, "time_us", 1e-6, planned);
  k.kind = MeasuredKernel::Kind::stream;
  k.kernel = k.family = (table.header("pytorch").empty() ? "" : torch_prefix) + table.text(row, "kernel");
  k.group = table.has("n_q") ? "merge" : "elementwise";
  k.bytes = Bytes::from_si(table.positive(row, "bytes"));
  if (table.text(row, "cache").starts_with("flushed")) {
    const bool known = !table.text(row, "launches_per_sample").empty();
    k.flushes = known ? 1 / table.positive(row, "launches_per_sample") : 1;
  }
  k.shape = fmt::format("{} {}", k.kernel, format(k.bytes));
  k.work = k.bytes.si();
  return k;
}

MeasuredKernel message_row(const MeasuredTable& table, std::size_t row, Planned planned) {
  MeasuredKernel k = measured(table, row, "time_us", 1e-6, planned);
  k.kind = MeasuredKernel::Kind::message;
  k.link = table.text(row, "link");
  k.mechanism = table.text(row, "mechanism");
  k.op = table.text(row, "op");
  if (k.mechanism == "copy_engine") k.op += " " + table.text(row, "pattern");
  if (!table.text(row, "ranks").empty()) k.ranks = static_cast<int>(table.whole_number(row, "ranks", most_heads));
  k.bytes = Bytes::from_si(table.positive(row, "bytes"));
  name_message(k, table.text(row, "channels"));
  return k;
}

/// Also of columns that no model reads: a file with nonsense in one cell is not to be trusted in the others.
bool holds_numbers(std::string_view column) {
  static constexpr std::string_view names[] = {
      "n_gpu", "seq_len", "heads",      "kv_heads",      "head_dim",
      "n_q",   "n_k",     "window",     "tokens",        "width",
      "in",    "out",     "ranks",      "samples",       "bytes",
      "flops", "tflops",  "error_norm", "error_row_max", "launches_per_sample"};
  if (column == "processes_ms") return false;  // one for each process
  static constexpr std::string_view units[] = {"_ms", "_us", "_mhz", "_w", "_c", "_rel", "_per_s"};
  return contains(names, column) ||
         std::any_of(std::begin(units), std::end(units), [&](std::string_view unit) { return column.ends_with(unit); });
}

}  // namespace

void name_message(MeasuredKernel& m, const std::string& channels) {
  if (!channels.empty() && channels != "auto") m.op += fmt::format(" {} channels", channels);
  if (m.mechanism == "nccl" && m.ranks > 2) m.op += fmt::format(" {} ranks", m.ranks);
  m.family = fmt::format("{} {} {}", m.link, m.mechanism, m.op);
  m.group = fmt::format("{} {} 1 MB", m.mechanism == "nccl" ? "collectives" : "copies",
                        m.bytes.si() < large_message ? "<" : ">=");
  m.shape = fmt::format("{} {}", m.family, format(m.bytes));
  m.work = std::strtod(fmt::format("{:.5g}", m.bytes.si()).c_str(), nullptr);  // files round sizes to 6 digits
}

bool MeasuredKernel::is_guarded() const {
  return kind == Kind::attention && attention.guarded(phase, measured_tile);
}

Regime regime_of(const MeasuredTable& table, std::size_t row) {
  const std::string& name = table.text(row, "regime");
  if (name.empty() || name == "sustained") return Regime::sustained;
  if (name == "burst") return Regime::burst;
  throw table.error(row, fmt::format("regime = \"{}\" is unknown, write burst or sustained", name));
}

std::string mask_of(const MeasuredTable& table, std::size_t row) {
  const bool has_window = !table.text(row, "window").empty();
  std::string mask = table.text(row, "mask");
  if (mask.empty()) mask = has_window ? "window" : table.boolean(row, "causal") ? "causal" : "full";
  if (mask != "full" && mask != "causal" && mask != "window")
    throw table.error(row, fmt::format("mask = \"{}\" is unknown, write full, causal or window", mask));
  if (has_window != (mask == "window")) {
    throw table.error(row, has_window ? fmt::format("mask = {} and window = {} contradict each other, leave mask empty",
                                                    mask, table.text(row, "window"))
                                      : "mask = window, but window is empty, write how many keys a query sees");
  }
  if (table.text(row, "causal").empty() || table.boolean(row, "causal") == (mask != "full")) return mask;
  throw table.error(row,
                    fmt::format("mask = {} and causal = {} contradict each other, {}", mask, table.text(row, "causal"),
                                mask == "window" ? "a window is causal here" : "leave mask empty"));
}

int batch_of(const MeasuredTable& table, std::size_t row) {
  if (const std::string& dtype = table.text(row, "dtype"); !dtype.empty() && dtype != "bf16") {
    throw table.error(
        row, fmt::format("dtype = \"{}\", but what is measured and predicted is bf16, leave the row out", dtype));
  }
  return table.text(row, "batch").empty() ? 1 : static_cast<int>(table.whole_number(row, "batch", most_heads));
}

Seconds measured_time(const MeasuredTable& table, std::size_t row, const char* column, double unit) {
  constexpr double least_s = 1e-12, most_s = 1e12;
  const double time_s = table.positive(row, column) * unit;
  if (time_s >= least_s && time_s <= most_s) return Seconds::from_si(time_s);
  throw table.error(row, fmt::format("{} = {} is no time that was measured (less than a picosecond, or ages)", column,
                                     table.text(row, column)));
}

void check_numbers(const MeasuredTable& table, std::size_t row) {
  for (const std::string& column : table.columns()) {
    if (!holds_numbers(column)) continue;
    const std::optional<double> value = table.optional_number(row, column);
    // Time stamps of a copy stream begin before the first kernel.
    if (value && *value < 0 && column != "start_us" && column != "end_us") {
      throw table.error(row, fmt::format("{} = {} is negative, write 0 or more, or nothing", column, *value));
    }
  }
}

std::string file_of(const MeasuredKernel& row) {
  const std::filesystem::path file = row.place.substr(0, row.place.rfind(':'));
  return (file.parent_path().filename() / file.filename()).string();
}

std::string machine_of(const MeasuredKernel& row) {
  return std::filesystem::path(row.place).parent_path().filename().string();
}

TilePairs tile_pairs(const MaskShape& shape, double tile_query, double tile_key) {
  TilePairs pairs;
  const double offset = shape.n_k - shape.n_q;
  double useful = 0, there = 0;
  for (double first = 0; first < shape.n_q; first += tile_query) {
    const double last = std::min(first + tile_query, shape.n_q) - 1;
    double low = 0, high = shape.n_k - 1;
    if (shape.mask != "full") high = std::min(high, last + offset);
    if (shape.mask == "window") low = std::max(0.0, first + offset - shape.window + 1);
    if (high < low) continue;
    const double first_tile = std::floor(low / tile_key), last_tile = std::floor(high / tile_key);
    for (double query = first; query <= last; ++query) {
      const double seen = shape.mask == "full" ? shape.n_k : std::min(shape.n_k, query + offset + 1);
      useful += std::max(0.0, shape.mask == "window" ? std::min(seen, shape.window) : seen);
    }
    const double past = (last_tile + 1) * tile_key, begin = first_tile * tile_key;
    pairs.executed += tile_query * (past - begin);
    there += (last - first + 1) * (std::min(past, shape.n_k) - begin);
  }
  pairs.masked = there - useful;
  pairs.beyond = pairs.executed - there;
  return pairs;
}

void add_rows(const MeasuredTable& table, std::vector<MeasuredKernel>& rows, Planned planned) {
  MeasuredKernel (*row_of)(const MeasuredTable&, std::size_t, Planned) = nullptr;
  if (table.has("n_q") && table.has("time_ms") && table.has("head_dim")) row_of = attention_row;
  if (table.has("layer") && table.has("in") && table.has("out")) row_of = gemm_row;
  if (table.has("kernel") && table.has("bytes") && (table.has("n_q") || table.has("width"))) row_of = stream_row;
  if (table.has("mechanism") && table.has("op") && table.has("bytes")) row_of = message_row;
  if (row_of == nullptr) return;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const bool counts = table.is_ok(i) || (planned == Planned::included && table.text(i, "status") == "planned");
    if (!counts) continue;
    if (row_of == attention_row && table.text(i, "schedule") != "kernel") continue;
    if (row_of == gemm_row && table.text(i, "data") != "normal") continue;  // zeros show what data costs, not a product
    check_numbers(table, i);
    rows.push_back(row_of(table, i, planned));
  }
}

}  // namespace orrery
