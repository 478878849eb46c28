#include "cost_models/fit_overlap.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "cost_models/intervals.hpp"
#include "cost_models/unknowns.hpp"
#include "sim/contains.hpp"

namespace orrery {
namespace {

struct OverlapRow {
  std::string kernel, channels, file;
  double alone_us = 0, beside_us = 0;  // of the transfer
  std::uint32_t digest = 0;
  double ratio() const { return beside_us / alone_us; }
};

/// Beside a kernel nothing gets faster, and nothing that was measured 17 times slower (copies to the host, 16.2).
void check_slow_down(const MeasuredTable& table, std::size_t row, const std::string& what) {
  constexpr double least = 0.8, most = 50;
  const std::string alone = what + "_alone_us", beside = what + "_overlapped_us";
  if (table.text(row, alone).empty() || table.text(row, beside).empty()) return;
  const double times = table.number(row, beside) / table.number(row, alone);
  if (times >= least && times <= most) return;
  throw table.error(row, fmt::format("{} = {} (but {} = {}: beside others nothing is faster, or {:.0f} times slower), "
                                     "correct the one that is not in us",
                                     beside, table.text(row, beside), alone, table.text(row, alone), most));
}

std::vector<OverlapRow> rows_of(std::span<const MeasuredTable> tables) {
  std::vector<OverlapRow> rows;
  for (const MeasuredTable& table : tables) {
    if (!table.has("transfer_overlapped_us")) continue;
    for (std::size_t i = 0; i < table.rows(); ++i) {
      if (table.text(i, "status") != "ok" || table.text(i, "mechanism") != "nccl_send_recv") continue;
      OverlapRow row{table.text(i, "kernel"),
                     table.text(i, "channels"),
                     (table.file().parent_path().filename() / table.file().filename()).string(),
                     table.number(i, "transfer_alone_us"),
                     table.number(i, "transfer_overlapped_us"),
                     row_digest(table, i)};
      if (!(row.alone_us > 0) || !(row.beside_us > 0)) {
        throw table.error(i, "a transfer takes no time, give the times alone and overlapped in us");
      }
      for (const char* what : {"transfer", "compute"}) check_slow_down(table, i, what);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::vector<OverlapRow> beside(const std::vector<OverlapRow>& all, std::initializer_list<std::string_view> kernels) {
  std::vector<OverlapRow> rows;
  for (const OverlapRow& row : all) {
    if (contains(kernels, row.kernel)) rows.push_back(row);
  }
  return rows;
}

void set(Constant& c, double value, double low, double high, int rows, std::string source) {
  c.value = std::max(1.0, value);
  c.low = std::max(1.0, low);
  c.high = std::max(c.low, high);
  c.rows = rows;
  c.provenance = Provenance::fitted;
  c.source = std::move(source) + (value < 1 ? Unknowns::at_bound : "");  // no kernel speeds NCCL up
}

/// Their thread blocks are over in microseconds, so NCCL's start at once: the ratio of the times is the slow-down.
void fit_streams_beside(const std::vector<OverlapRow>& rows, Constant& c, RowDigests& used) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < rows.size(); i += 3) {
    ratios.push_back(rows[i].ratio());
    used.insert(rows[i].digest);
  }
  if (ratios.empty()) return;
  set(c, quantile(ratios, 0.5), quantile(ratios, 0.05), quantile(ratios, 0.95), static_cast<int>(ratios.size()),
      rows.front().file + ": median of the first of every three rows");
}

/// Beside these a transfer first waits until thread blocks that run have ended, which takes as long for a short one as
/// for a long one: beside = wait + slow-down * alone, through the two longest (of 1 and 4 channels), which outlast
/// several kernels. Without any wait it would be the ratio of the longest.
void fit_tensor_kernel(std::vector<OverlapRow> rows, Constant& c, RowDigests& used) {
  if (rows.size() < 2) return;
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.alone_us > b.alone_us; });
  const OverlapRow &longest = rows[0], &second = rows[1];
  if (!(longest.alone_us > 1.5 * second.alone_us)) return;  // a line through one place says nothing
  const double slope = (longest.beside_us - second.beside_us) / (longest.alone_us - second.alone_us);
  used.insert({longest.digest, second.digest});
  set(c, slope, std::min(slope, longest.ratio()), std::max(slope, longest.ratio()), 2,
      fmt::format("{}: through the rows of {} and {} channels; no wait for SMs would be the other end of the interval",
                  longest.file, longest.channels, second.channels));
}

}  // namespace

std::vector<MeasuredKernel> transfers_alone(const MeasuredTable& table) {
  constexpr std::string_view nccl = "nccl_";
  std::vector<MeasuredKernel> transfers;
  if (!table.has("transfer_bytes")) return transfers;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const std::string& mechanism = table.text(i, "mechanism");
    if (!table.is_ok(i) || !mechanism.starts_with(nccl)) continue;
    MeasuredKernel& transfer = transfers.emplace_back();
    transfer.kind = MeasuredKernel::Kind::message;
    transfer.place = table.place(i);
    transfer.link = table.text(i, "link");
    transfer.mechanism = "nccl";
    transfer.op = mechanism.substr(nccl.size());
    transfer.ranks = static_cast<int>(table.optional_number(i, "n_gpu").value_or(2));
    transfer.bytes = Bytes::from_si(table.positive(i, "transfer_bytes"));
    transfer.time = measured_time(table, i, "transfer_alone_us", 1e-6);
    name_message(transfer, table.text(i, "channels"));
  }
  return transfers;
}

std::optional<NcclBeside> fit_nccl_beside(std::span<const MeasuredTable> tables, RowDigests& used) {
  const std::vector<OverlapRow> all = rows_of(tables);
  if (all.empty()) return std::nullopt;
  NcclBeside model;
  for (const ConstantOf<NcclBeside>& constant : constants_of_nccl_beside()) {
    model.*constant.member = {.name = fmt::format("nccl_beside.{}", constant.name),
                              .value = 1,
                              .unit = std::string(constant.unit),
                              .provenance = Provenance::assumed,
                              .source = fmt::format("no rows of {}", constant.determined_by)};
  }
  fit_tensor_kernel(beside(all, {"attention_forward"}), model.attention_forward, used);
  fit_tensor_kernel(beside(all, {"attention_backward"}), model.attention_backward, used);
  fit_tensor_kernel(beside(all, {"gemm"}), model.matrix_products, used);
  fit_streams_beside(beside(all, {"merge", "copy"}), model.streams, used);
  return model;
}

}  // namespace orrery
