#include "cli/fit_inputs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>

#include "cost_models/fit_checks.hpp"
#include "cost_models/fit_overlap.hpp"
#include "cost_models/fit_published.hpp"
#include "cost_models/intervals.hpp"
#include "cost_models/seen_rows.hpp"
#include "scenarios/data_files.hpp"
#include "scenarios/hardware.hpp"

namespace orrery {
namespace {

/// The one value that all tables have under that header key or column; an error if they disagree or none has it.
class Agreed {
 public:
  explicit Agreed(std::string what) : what_(std::move(what)) {}
  void add(const std::string& value, const std::string& place) {
    if (value.empty()) return;
    if (!value_.empty() && value != value_) {
      throw FitError(fmt::format("{}: {} = {} (but {} in {}), fit files of one GPU and its kernels at a time", place,
                                 what_, value, value_, place_));
    }
    value_ = value;
    place_ = place;
  }
  const std::string& optional_value() const { return value_; }
  const std::string& value() const {
    if (value_.empty()) throw FitError(fmt::format("no file says its {}, give files that orrery bench wrote", what_));
    return value_;
  }

 private:
  std::string what_, value_, place_;
};

/// The number of a header that reads as `form` says, whose only group it is.
double number_in(const std::string& text, const std::string& what, const char* form, const char* example) {
  std::smatch match;
  if (std::regex_search(text, match, std::regex(form)))
    if (const double value = std::stod(match.str(1)); value > 0) return value;
  throw FitError(fmt::format("header {} = {} does not say it as orrery bench does, write e.g. {} = {}", what, text,
                             what, example));
}

double clock_mhz(const std::string& clocks) {
  return number_in(clocks, "clocks", "(?:^|[ ,])SM at most ([0-9]{1,6}(?:\\.[0-9]*)?) MHz(?:,|$)",
                   "SM at most 1980 MHz");
}

double watts(const std::string& limit) {
  return number_in(limit, "power_limit_w", "^([0-9]{1,6}(?:\\.[0-9]*)?)$", "700");
}

/// Whose attention kernels these are.
void add_backends(const MeasuredTable& table, Agreed& backend) {
  if (!table.has("n_q")) return;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    if (table.text(i, "schedule") == "kernel") backend.add(table.text(i, "backend"), table.place(i));
  }
}

/// Throws FitError for a time of both passes: their shares are not known. Rows that say why they are not to be
/// predicted are not fitted on either, and a row that is there twice is one measurement.
void add_single_passes(const MeasuredTable& table, std::vector<MeasuredKernel>& rows) {
  const std::size_t before = rows.size();
  RowDigests seen;
  for (const MeasuredKernel& row : rows) seen.insert(row.digest);
  add_rows(table, rows);
  rows.erase(std::remove_if(rows.begin() + static_cast<std::ptrdiff_t>(before), rows.end(),
                            [&](const MeasuredKernel& row) {
                              return !table.text(row.row, "not_predicted").empty() || !seen.insert(row.digest).second;
                            }),
             rows.end());
  for (std::size_t i = before; i < rows.size(); ++i) {
    if (!rows[i].both_passes) continue;
    throw FitError(
        fmt::format("{}: pass = forward_backward is the time of two kernels (nothing can be fitted on their "
                    "sum), give the time of each",
                    rows[i].place));
  }
}

/// Throws FitError for rows of another GPU than the one that is fitted.
void require_gpu(const MeasuredTable& table, const std::string& gpu) {
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const std::string& own = table.text(i, "gpu");
    if (own.empty() || own == gpu) continue;
    throw FitError(fmt::format("{}: gpu = {} (but {} is fitted), give files of that GPU", table.place(i), own, gpu));
  }
}

/// Kernels, messages, host costs, transfers beside kernels, power, rings and their steps, pi-Attention. A fit does not
/// use all, but whoever names a folder names them.
bool is_measured(const MeasuredTable& table) {
  std::vector<MeasuredKernel> rows;
  add_rows(table, rows);
  return !rows.empty() || table.rows() == 0 ||
         std::any_of(table.columns().begin(), table.columns().end(), [](const std::string& column) {
           return column == "cost" || column == "transfer_overlapped_us" || column == "nvml_sm_clock_mhz" ||
                  column == "tokens_per_gpu" || column == "skips";
         });
}

/// What `is_measured` lacks: rows that succeeded, or a column of the kind of file that it comes nearest to.
std::string why_not_measured(const MeasuredTable& table) {
  bool any_ok = false;
  for (std::size_t i = 0; i < table.rows(); ++i) any_ok = any_ok || table.is_ok(i);
  if (!any_ok) return "no row has status = ok (nothing was measured), measure them again or leave the file out";
  static const std::vector<std::string> kinds[] = {{"kernel", "bytes", "n_q"},
                                                   {"kernel", "bytes", "width"},
                                                   {"mechanism", "op", "bytes"},
                                                   {"layer", "in", "out"},
                                                   {"n_q", "head_dim", "time_ms"}};
  for (std::vector<std::string> kind : kinds) {
    std::erase_if(kind, [&](const std::string& column) { return table.has(column); });
    if (kind.size() != 1) continue;
    return fmt::format("column {} is missing (there are {}), write it", kind[0], fmt::join(table.columns(), ", "));
  }
  return fmt::format("the columns are those of no file of orrery bench ({}), is one missing?",
                     fmt::join(table.columns(), ", "));
}

void require_measured(const MeasuredTable& table) {
  if (is_measured(table)) return;
  throw MeasuredFileError(fmt::format("{}:1: {}", table.file().string(), why_not_measured(table)));
}

/// The links that rows name and that there are files of.
std::map<std::string, BytesPerSecond> links_of(std::span<const MeasuredKernel> rows) {
  const std::vector<std::string> known = known_names("hardware");
  std::map<std::string, BytesPerSecond> links;
  for (const MeasuredKernel& row : rows) {
    if (links.contains(row.link) || !std::binary_search(known.begin(), known.end(), row.link)) continue;
    links[row.link] = load_link(row.link).bandwidth;
  }
  return links;
}

}  // namespace

GpuPeaks peaks_of(const Gpu& gpu) {
  return {gpu.peak("bf16"), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
}

bool are_published(const std::vector<std::string>& files) {
  return std::all_of(files.begin(), files.end(),
                     [](const std::string& file) { return MeasuredTable::read(file).header("clocks").empty(); });
}

BenchInputs read_bench_inputs(const std::vector<std::string>& files) {
  BenchInputs inputs;
  Agreed gpu("gpu"), clocks("clocks"), limit("power_limit_w"), driver("driver"), cudnn("cudnn"), backend("backend");
  std::vector<double> idle;
  std::set<std::string> names, dates;
  std::vector<MeasuredTable> tables;
  SeenRows seen;
  for (const std::string& file : files) {
    const MeasuredTable& table = tables.emplace_back(MeasuredTable::read(file));
    seen.add(table);
    add_single_passes(table, inputs.rows);
    names.insert(std::filesystem::path(file).filename().string());
    require_measured(table);
    if (table.rows() == 0) {
      throw MeasuredFileError(fmt::format("{}: no row below the column names, give the whole file", file));
    }
    for (std::size_t i = 0; i < table.rows(); ++i) {
      if (table.is_ok(i)) check_numbers(table, i);
      gpu.add(table.text(i, "gpu"), table.place(i));
      if (table.has("cost") && table.is_ok(i)) {
        if (const auto watts = table.optional_number(i, "power_w")) idle.push_back(*watts);
      }
    }
    add_backends(table, backend);
    clocks.add(table.header("clocks"), file);
    limit.add(table.header("power_limit_w"), file);
    driver.add(table.header("driver"), file);
    cudnn.add(table.header("cudnn"), file);
    if (!table.header("date").empty()) dates.insert(table.header("date").substr(0, 10));
  }
  inputs.gpu = gpu.value();
  inputs.backend = backend.optional_value();
  FitFacts& facts = inputs.facts;
  const Gpu chip = load_gpu(inputs.gpu);
  facts.peaks = peaks_of(chip);
  facts.cache = chip.l2_cache.value_or(Bytes());
  facts.maximum_clock_hz = clock_mhz(clocks.value()) * 1e6;
  facts.power_limit_w = watts(limit.value());
  facts.idle_power_w = idle.empty() ? 0 : quantile(idle, 0.5);
  facts.links = links_of(inputs.rows);
  facts.source = "headers of the measured files";
  for (const MeasuredTable& table : tables) check_conditions(table, facts);
  check_rates(inputs.rows, facts);
  std::vector<MeasuredKernel> messages = inputs.rows;
  for (const MeasuredTable& table : tables) {
    const std::vector<MeasuredKernel> transfers = transfers_alone(table);
    messages.insert(messages.end(), transfers.begin(), transfers.end());
  }
  check_messages(messages);
  if (idle.empty()) throw FitError("no power at idle (it is read from rows of host costs), give overhead.csv too");
  inputs.nccl_beside = fit_nccl_beside(tables, inputs.rows_of_nccl_beside);
  inputs.files = fmt::format("{}", fmt::join(names, ", "));
  inputs.conditions = fmt::format("{}; driver {}, cuDNN {}, clocks {}, {}", inputs.gpu, driver.value(), cudnn.value(),
                                  clocks.value(), fmt::join(dates, ", "));
  return inputs;
}

PublishedInputs read_published_inputs(const std::vector<std::string>& files) {
  PublishedInputs inputs;
  Agreed gpu("gpu"), backend("backend");
  std::set<std::string> sources;
  SeenRows seen;
  for (const std::string& file : files) {
    const MeasuredTable table = MeasuredTable::read(file);
    seen.add(table);
    add_single_passes(table, inputs.rows);
    require_measured(table);
    for (std::size_t i = 0; i < table.rows(); ++i) gpu.add(table.text(i, "gpu"), table.place(i));
    add_backends(table, backend);
    std::string source = table.header("url").empty() ? table.header("gpu") : table.header("url");
    for (const char* key : {"grade", "how"}) {
      if (!table.header(key).empty()) source += fmt::format("; {}: {}", key, table.header(key));
    }
    // A file without a header is at least named.
    sources.insert(source.empty() ? std::filesystem::path(file).filename().string() : source);
  }
  inputs.gpu = gpu.value();
  FitFacts facts;
  facts.peaks = peaks_of(load_gpu(inputs.gpu));
  facts.cache = load_gpu(inputs.gpu).l2_cache.value_or(Bytes());
  // Of the datasheet's peak: published rates say no clock.
  facts.maximum_clock_hz = facts.peaks.matrix.si() / tensor_flops_per_cycle(facts.peaks, usual_clock_hz);
  check_rates(inputs.rows, facts);
  inputs.backend = backend.optional_value();
  inputs.sources = fmt::format("{}", fmt::join(sources, "; "));
  return inputs;
}

MachineRows read_other_machines(const std::vector<std::string>& files, const std::string& gpu,
                                std::span<const MeasuredKernel> fitted) {
  RowDigests known;
  for (const MeasuredKernel& row : fitted) known.insert(row.digest);
  MachineRows machines;
  SeenRows seen;
  for (const std::string& file : files) {
    const MeasuredTable table = MeasuredTable::read(file);
    seen.add(table);
    require_gpu(table, gpu);
    std::vector<MeasuredKernel> rows;
    add_single_passes(table, rows);
    // One or two short kernels take as long on another chip, to the last digit.
    const auto same =
        std::count_if(rows.begin(), rows.end(), [&](const auto& row) { return known.contains(row.digest); });
    if (2 * static_cast<std::size_t>(same) > rows.size()) {
      throw FitError(
          fmt::format("{}: its rows are among those to fit (a chip says nothing of how others differ from "
                      "it), give files of other chips",
                      file));
    }
    for (const MeasuredKernel& row : rows) machines[machine_of(row)].push_back(row);
  }
  return machines;
}

void add_guarded(const std::string& file, const std::string& gpu, std::vector<MeasuredKernel>& rows) {
  const MeasuredTable table = MeasuredTable::read(file);
  require_gpu(table, gpu);
  const std::size_t before = rows.size();
  add_single_passes(table, rows);
  rows.erase(std::remove_if(rows.begin() + static_cast<std::ptrdiff_t>(before), rows.end(),
                            [](const MeasuredKernel& row) { return !row.is_guarded(); }),
             rows.end());
  if (rows.size() == before) {
    throw FitError(fmt::format(
        "{}: no full block that is not fitted on anyway has keys that end inside a tile of 128, give --guarded one",
        file));
  }
}

std::vector<MeasuredTable> read_runs(const std::vector<std::string>& files, const std::string& gpu) {
  std::vector<MeasuredTable> tables;
  SeenRows seen;
  for (const std::string& file : files) {
    const MeasuredTable& table = tables.emplace_back(MeasuredTable::read(file));
    seen.add(table);
    require_gpu(table, gpu);
  }
  return tables;
}

}  // namespace orrery
