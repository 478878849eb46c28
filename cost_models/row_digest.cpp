#include "cost_models/row_digest.hpp"

#include <fmt/format.h>

#include <charconv>

namespace orrery {
namespace {

constexpr std::string_view identity[] = {"implementation",
                                         "backend",
                                         "gpu",
                                         "link",
                                         "n_gpu",
                                         "ranks",
                                         "seq_len",
                                         "heads",
                                         "kv_heads",
                                         "head_dim",
                                         "causal",
                                         "layout",
                                         "schedule",
                                         "pass",
                                         "n_q",
                                         "n_k",
                                         "mask",
                                         "window",
                                         "period",
                                         "transport",
                                         "channels",
                                         "kernel",
                                         "tokens",
                                         "width",
                                         "model",
                                         "layer",
                                         "in",
                                         "out",
                                         "data",
                                         "mechanism",
                                         "op",
                                         "pattern",
                                         "bytes",
                                         "regime",
                                         "time_ms",
                                         "time_us",
                                         "compute_overlapped_us",
                                         "transfer_overlapped_us"};

std::optional<double> number_of(const std::string& cell) {
  double value = 0;
  const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return code == std::errc() && end == cell.data() + cell.size() ? std::optional(value) : std::nullopt;
}

std::string to_six_digits(const std::string& cell) {
  const auto value = number_of(cell);
  return value ? fmt::format("{:.6g}", *value) : plain_cell(cell);
}

}  // namespace

std::uint32_t digest(std::string_view text) {
  std::uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

std::string plain_cell(const std::string& cell) {
  if (const auto value = boolean_of(cell)) return *value ? "true" : "false";
  const auto value = number_of(cell);
  return value ? fmt::format("{}", *value) : cell;
}

std::uint32_t row_digest(const MeasuredTable& table, std::size_t row) {
  std::string text;
  for (const std::string_view column : identity) {
    const std::string& cell = table.text(row, column);
    if (!cell.empty()) text += fmt::format("{}={};", column, to_six_digits(cell));
  }
  return digest(text);
}

}  // namespace orrery
