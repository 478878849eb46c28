#include "scenarios/hardware.hpp"

#include <fmt/format.h>

#include <stdexcept>

#include "scenarios/reader.hpp"

namespace orrery {
namespace {

const std::vector<std::string> dtypes = {"bf16", "fp16", "tf32", "fp32", "fp8"};

/// Data sheets hold positive numbers; a zero would divide somewhere far from here.
template <class Value>
Value positive(const Table& table, std::string_view key, Value value) {
  if (value > Value{}) return value;
  throw table.error_at(key, fmt::format("{} is 0 (no such hardware exists), write what the data sheet says", key));
}

}  // namespace

FlopsPerSecond Gpu::peak(std::string_view dtype) const {
  if (const auto found = peaks.find(std::string(dtype)); found != peaks.end()) return found->second;
  std::string known;
  for (const auto& [with_peak, rate] : peaks) known += fmt::format("{}{}", known.empty() ? "" : ", ", with_peak);
  throw std::runtime_error(
      fmt::format("{} has no peak for \"{}\" (its data sheet gives none), known: {}", name, dtype, known));
}

Gpu load_gpu(std::string_view name, const std::filesystem::path& mentioned_in) {
  const Table file = Table::parse_file(resolve(name, "hardware", mentioned_in));
  file.choice("kind", {"gpu"});
  Gpu gpu;
  gpu.name = file.file().stem().string();
  gpu.description = file.string("description");
  gpu.source = file.string("source");
  gpu.hbm_bandwidth = positive(file, "hbm_bandwidth", file.bandwidth("hbm_bandwidth"));
  gpu.hbm_capacity = positive(file, "hbm_capacity", file.bytes("hbm_capacity"));
  if (file.has("l2_cache")) gpu.l2_cache = positive(file, "l2_cache", file.bytes("l2_cache"));
  gpu.sms = positive(file, "sms", file.count("sms"));
  gpu.board_power = file.optional_power("board_power");
  gpu.links = file.strings("links");
  if (file.has("like")) gpu.like = file.string("like");
  const Table peaks = file.table("peak");
  for (const std::string& dtype : dtypes) {
    if (const auto rate = peaks.optional_flop_rate(dtype)) gpu.peaks[dtype] = positive(peaks, dtype, *rate);
  }
  file.finish();
  if (gpu.peaks.empty())
    throw peaks.error_here(fmt::format("[peak] is empty, give at least one of {}", fmt::join(dtypes, ", ")));
  return gpu;
}

LinkType load_link(std::string_view name, const std::filesystem::path& mentioned_in) {
  const Table file = Table::parse_file(resolve(name, "hardware", mentioned_in));
  file.choice("kind", {"link"});
  LinkType link;
  link.name = file.file().stem().string();
  link.description = file.string("description");
  link.source = file.string("source");
  link.bandwidth = positive(file, "bandwidth", file.bandwidth("bandwidth"));
  link.links_per_gpu = positive(file, "links_per_gpu", file.count("links_per_gpu"));
  link.latency = file.seconds("latency");
  link.latency_provenance = file.choice("latency_provenance", {"datasheet", "measured", "assumed"});
  file.finish();
  return link;
}

}  // namespace orrery
