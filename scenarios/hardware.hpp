// GPUs and links as their data sheets describe them: the files in scenarios/hardware/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/units.hpp"

namespace orrery {

/// A GPU, or a TPU chip. Peaks are dense (without structured sparsity) and are what the data sheet promises, not what a
/// kernel reaches; that is the business of a profile.
struct Gpu {
  std::string name;  // the file's
  std::string description;
  std::string source;
  std::map<std::string, FlopsPerSecond> peaks;  // by dtype: bf16, fp16, tf32, fp32, fp8
  BytesPerSecond hbm_bandwidth;
  Bytes hbm_capacity;
  std::optional<Bytes> l2_cache;
  std::int64_t sms = 0;              // streaming multiprocessors; TPU: tensor cores
  std::optional<Watts> board_power;  // what the board may draw; not published for every chip
  std::vector<std::string> links;    // names of the link types it has, the fastest first
  std::string like;                  // the GPU whose profiles it may use too; empty: none

  /// Throws std::runtime_error naming the GPU and the dtypes it has a peak for.
  FlopsPerSecond peak(std::string_view dtype) const;
};

/// A kind of link between two ends. Links of one kind that always work together (the 18 NVLinks of an H100) are one.
struct LinkType {
  std::string name;  // the file's
  std::string description;
  std::string source;
  BytesPerSecond bandwidth;        // of one link in one direction
  std::int64_t links_per_gpu = 0;  // how many of them one GPU has: NVLink 1 (the aggregate), a 2D torus 4
  Seconds latency;                 // of one hop, without software
  std::string latency_provenance;  // "datasheet", "measured" or "assumed"
};

/// By path, or by the name of a file in scenarios/hardware/ (see resolve). Throw InputError.
Gpu load_gpu(std::string_view name, const std::filesystem::path& mentioned_in = {});
LinkType load_link(std::string_view name, const std::filesystem::path& mentioned_in = {});

}  // namespace orrery
