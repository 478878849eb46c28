#include "cost_models/nccl_channels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>

namespace orrery {
namespace {

// Bytes: 32 steps of NCCL's 512 KiB; measured files round sizes to six digits.
constexpr double most_per_channel = 16 * 1024 * 1024 * (1 + 1e-5);
constexpr int most_limit = 32;
constexpr int cluster = 4, processing_clusters = 8;

}  // namespace

int nccl_send_recv_channels(int most, int ranks, Bytes message) {
  most = std::max(most, 1);
  int channels = most, cap = most;
  while (channels > 1 && channels * ranks > most) channels /= 2;
  while (cap > 1 && cap * ranks > 4 * most) cap /= 2;
  while (message.si() / channels > most_per_channel && 2 * channels <= cap) channels *= 2;
  return channels;
}

Bytes nccl_most_bytes(int channels) {
  return Bytes::from_si(std::floor(channels * most_per_channel));
}

std::map<int, LinkTable> send_recv_by_channels(const MeasuredKernels& kernels, std::string_view link) {
  std::map<int, std::map<double, double>> seconds;  // by channels and bytes
  for (int limit = 1; limit <= most_limit; limit *= 2) {
    const LinkTable* table = kernels.link_of(link, "nccl", fmt::format("send_recv {} channels", limit));
    for (std::size_t i = 0; table != nullptr && i < table->bytes.size(); ++i) {
      const int used = nccl_send_recv_channels(limit, 2, Bytes::from_si(table->bytes[i]));
      seconds[used].try_emplace(table->bytes[i], table->seconds[i]);
    }
  }
  std::map<int, LinkTable> tables;
  for (const auto& [used, times] : seconds) {
    LinkTable& table = tables[used];
    for (const auto& [bytes, time] : times) {
      table.bytes.push_back(bytes);
      table.seconds.push_back(table.seconds.empty() ? time : std::max(time, table.seconds.back()));
    }
  }
  return tables;
}

std::optional<Seconds> send_recv_named(std::string_view name, Bytes message, const MeasuredKernels& kernels,
                                       std::string_view link) {
  std::istringstream words{std::string(name)};
  std::string op, unit;
  words >> op;
  if (op != "send_recv") return std::nullopt;
  int limit = nccl_automatic_channels, ranks = 2;
  for (int count = 0; words >> count >> unit;) (unit == "ranks" ? ranks : limit) = count;
  const std::map<int, LinkTable> tables = send_recv_by_channels(kernels, link);
  const auto found = tables.find(nccl_send_recv_channels(limit, ranks, message));
  return found == tables.end() ? std::nullopt : std::optional(found->second.time(message));
}

int idle_sms_for_nccl(int channels) {
  return channels + (cluster - 1) * processing_clusters;
}

}  // namespace orrery
